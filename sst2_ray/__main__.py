"""`python -m sst2_ray COMMAND ...`, the same as `sst2-ray COMMAND ...`."""

from sst2_ray.cli import main

if __name__ == "__main__":
    main()
