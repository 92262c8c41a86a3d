"""A user study over folders of restored photos: blinded, randomised, balanced, and its report.

`creation` takes the folders in, `store` keeps who is shown what and what they answered, and
`analysis` with `writing` make the figures of it. The web page is in `hbr.apps.web`.
"""
