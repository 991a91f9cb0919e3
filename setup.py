"""Packaging. The version stands in mtsft_preproc/_version.py."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION: dict[str, str] = {}
exec((HERE / "mtsft_preproc" / "_version.py").read_text("utf-8"), VERSION)

TORCH = ["torch>=2.4"]

setup(
    name="mtsft_preproc",
    version=VERSION["__version__"],
    description="Offline preprocessing of dialogues for multi-turn supervised fine-tuning",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    packages=find_packages(include=["mtsft_preproc", "mtsft_preproc.*"]),
    package_data={"mtsft_preproc": ["py.typed", "indexed/README.md", "templates/builtin/*.jinja"]},
    python_requires=">=3.10",
    install_requires=[
        # Has wheels for x86-64 and 64-bit ARM and no dependencies. Never needed: without it, and for
        # tokenizers that it does not encode as the reference does, the reference encodes.
        "fastokens>=0.3.5; platform_machine in 'x86_64 AMD64 aarch64 arm64'",
        "jinja2>=3.1.6",
        "numpy>=1.26",
        "orjson>=3.10",
        "pandas>=2.2",
        "pyarrow>=17",
        "pyyaml>=6",
        "rich>=13",
        "sentencepiece>=0.2",
        "tokenizers>=0.21",
        "tqdm>=4.66",
        "transformers>=5.0",
    ],
    extras_require={
        "torch": TORCH,
        "test": [
            *TORCH,
            "accelerate>=1.0",
            "hypothesis>=6.100",
            "megatron-core==0.16.1",
            "mypy>=1.15",
            "pandas-stubs",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "types-PyYAML",
            "types-tqdm",
        ],
    },
    entry_points={"console_scripts": ["mtsft=mtsft_preproc.cli:main"]},
)
