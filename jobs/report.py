"""Write the results as one HTML page: `python jobs/report.py --storage-path s3://bucket/sst2 --out report/`."""

import sys

from sst2_ray.cli import run

if __name__ == "__main__":
    sys.exit(run("report"))
