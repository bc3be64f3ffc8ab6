"""The engine in a simulated world: virtual time, modelled disks, a hostile network, and a checker of its own."""
