"""Stands in for curl where a machine has none: the options that the documentation uses, and no others."""

import argparse
import sys

import httpx


def main() -> None:
    parser = argparse.ArgumentParser(prog="curl")
    for letter in "siN":
        parser.add_argument(f"-{letter}", action="store_true")
    for letter in "XdHow":
        parser.add_argument(f"-{letter}", action="append" if letter == "H" else "store")
    parser.add_argument("url")
    given = parser.parse_args()
    headers = dict(header.split(": ", 1) for header in given.H or [])
    url = given.url if "://" in given.url else f"http://{given.url}"
    method = given.X or ("POST" if given.d is not None else "GET")
    response = httpx.request(method, url, content=given.d, headers=headers, timeout=30, trust_env=False)
    if given.i:
        print(f"HTTP/1.1 {response.status_code} {response.reason_phrase}")
        print("".join(f"{name}: {value}\n" for name, value in response.headers.items()))
    if given.o is None:
        sys.stdout.write(response.text)
    if given.w:
        sys.stdout.write(given.w.replace("%{http_code}", str(response.status_code)))


if __name__ == "__main__":
    main()
