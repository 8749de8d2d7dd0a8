"""What pyproject.toml cannot say: the wheel holds suites/ and models/ of the top level inside the package."""

from setuptools import find_namespace_packages, setup

BUNDLED = {"harness.suites": "suites", "harness.models.bundled": "models"}  # package -> its only source

setup(
    packages=[*find_namespace_packages(include=["harness*"]), *BUNDLED],
    package_dir=BUNDLED,
)
