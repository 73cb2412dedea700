"""Statistics on arrays: intervals and tests over seeds crossed with sentences, choices among many, planning. No I/O."""
