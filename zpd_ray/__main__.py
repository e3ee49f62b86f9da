"""``python -m zpd_ray``: the command line, where its script is not on the path."""

from zpd_ray.cli import main

main()
