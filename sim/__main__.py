"""Entry point of ``python -m sim``."""

from sim.commands.interrupts import exit_on_interrupt

if __name__ == "__main__":
    with exit_on_interrupt():
        from sim.cli import main

        main()
