"""Names the package folders; everything else is in setup.cfg.

``properties/`` and ``dataset_configs/`` stand at the top of a checkout and inside the package in a
wheel, which setup.cfg cannot say together with package discovery.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["recbole_ext", "recbole_ext.*"]),
        "recbole_ext.properties",
        "recbole_ext.dataset_configs",
    ],
    package_dir={
        "recbole_ext.properties": "properties",
        "recbole_ext.dataset_configs": "dataset_configs",
    },
)
