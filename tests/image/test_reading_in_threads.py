"""Photos read by many threads at once, each as by one, with the filters of warnings as before."""

import io
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from hbr.image import read_photo
from hbr.image.reading import photo_size

N_THREADS, N_READS = 8, 30
# five entries are announced: one, whose text lies beyond the end, and none
BROKEN = (
    b"Exif\0\0II*\0\x08\0\0\0\x05\0\x0f\x01\x02\0\xff\0\0\0\xff\xff\0\0",
    b"Exif\0\0II*\0\x08\0\0\0\x05\0",
)


def jpeg(exif, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (20 + seed, 30, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_the_size_of_an_open_file_leaves_it_at_its_start():
    file = io.BytesIO(jpeg(b"", 0))
    file.seek(5)
    assert photo_size(file) == (20, 30)
    assert file.tell() == 0


@pytest.fixture
def shown():
    """Every warning that is shown while the test runs."""
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        yield shown


@pytest.mark.parametrize("exif", BROKEN)
def test_pillow_warns_of_these_photos(shown, exif):
    with Image.open(io.BytesIO(jpeg(exif, 0))) as image:
        image.getexif()
    assert shown
    assert all("/PIL/" in warning.filename.replace("\\", "/") for warning in shown)


def test_many_threads_read_what_one_reads_and_leave_no_filter(shown):
    files = [jpeg(exif, seed) for seed, exif in enumerate((*BROKEN, b""))]
    alone = [read_photo(io.BytesIO(data)).pixels for data in files]
    filters, before = warnings.filters, list(warnings.filters)
    start = threading.Barrier(N_THREADS)

    def read(thread):
        start.wait(60)
        for number in range(N_READS):
            kind = (thread + number) % len(files)
            assert photo_size(io.BytesIO(files[kind])) == alone[kind].shape[:2]
            np.testing.assert_array_equal(read_photo(io.BytesIO(files[kind])).pixels, alone[kind])

    with ThreadPoolExecutor(N_THREADS) as pool:
        for done in [pool.submit(read, thread) for thread in range(N_THREADS)]:
            done.result(120)
    assert [str(warning.message) for warning in shown] == []
    assert warnings.filters is filters
    assert filters == before


def test_filters_that_are_reset_while_a_photo_is_read_stay_so(shown):
    class Resetting(io.BytesIO):
        def read(self, *args):
            warnings.resetwarnings()
            return super().read(*args)

    assert read_photo(Resetting(jpeg(b"", 0))).size == (20, 30)
    assert warnings.filters == []
