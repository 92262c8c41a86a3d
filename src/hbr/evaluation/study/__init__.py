"""A user study over folders of restored photos: blinded, randomised, balanced, and its report.

`create` takes the folders in, `Study` keeps who is shown what and what they answered, and
`summarise` with `write_report` make the figures of it. The web page is in `hbr.apps.web`.
"""

from typing import TYPE_CHECKING

from hbr.lazy import lazy

if TYPE_CHECKING:
    from hbr.evaluation.study.analysis import StudyReport, summarise
    from hbr.evaluation.study.creation import StudyPhotos, create
    from hbr.evaluation.study.design import StudyConfig
    from hbr.evaluation.study.store import Study, StudyError
    from hbr.evaluation.study.writing import write_report

__all__ = [
    "Study",
    "StudyConfig",
    "StudyError",
    "StudyPhotos",
    "StudyReport",
    "create",
    "summarise",
    "write_report",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Study": "hbr.evaluation.study.store",
        "StudyConfig": "hbr.evaluation.study.design",
        "StudyError": "hbr.evaluation.study.store",
        "StudyPhotos": "hbr.evaluation.study.creation",
        "StudyReport": "hbr.evaluation.study.analysis",
        "create": "hbr.evaluation.study.creation",
        "summarise": "hbr.evaluation.study.analysis",
        "write_report": "hbr.evaluation.study.writing",
    },
)
