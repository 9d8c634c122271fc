"""`python -m mechbench`."""

from mechbench.cli import program

if __name__ == "__main__":
    program()
