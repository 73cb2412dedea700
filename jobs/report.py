"""`python jobs/report.py --storage-path s3://bucket/sst2 --out report/`: the results as one HTML page with figures."""

from sst2_ray.cli import run

if __name__ == "__main__":
    raise SystemExit(run("report"))
