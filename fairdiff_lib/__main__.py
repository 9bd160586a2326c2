"""``fairdiff``, or ``python -m fairdiff_lib``: Ctrl-C is silent from the first import on."""

from __future__ import annotations


def main() -> int:
    """Exit code of :func:`fairdiff_lib.run.cli.main`; 130 when interrupted."""
    try:
        from fairdiff_lib.run import cli  # a second or two, in which one may change one's mind

        return cli.main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
