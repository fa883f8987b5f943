"""The ops that reach outside a graph: files, Python, the network, the process itself.

A table, pure, safe on any thread. Names are as in TensorFlow's op registry; a graph that needs one of them is
served only where the settings allow it by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


FILES_READ = _names("""
    ReadFile MatchingFiles WholeFileReader WholeFileReaderV2 TextLineReader TextLineReaderV2
    FixedLengthRecordReader FixedLengthRecordReaderV2 TFRecordReader TFRecordReaderV2 LMDBReader RecordInput
    Skipgram LoadAndRemapMatrix GenerateVocabRemapping TextLineDataset TFRecordDataset TFRecordDatasetV2
    FixedLengthRecordDataset FixedLengthRecordDatasetV2 CSVDataset CSVDatasetV2 SqlDataset LMDBDataset
    MatchingFilesDataset LoadDataset SnapshotDatasetReader SnapshotNestedDatasetReader SnapshotChunkDataset
    ListSnapshotChunksDataset ExperimentalCSVDataset ExperimentalSqlDataset ExperimentalLMDBDataset
    ExperimentalMatchingFilesDataset BigQueryReader DTensorRestoreV2
""")
FILES_WRITTEN = _names("""
    WriteFile Save SaveV2 SaveSlices MergeV2Checkpoints DistributedSave SaveDataset SaveDatasetV2
    SnapshotDataset SnapshotDatasetV2 DatasetToTFRecord ExperimentalDatasetToTFRecord DumpTensor
    CalibrationStatisticsSaver CreateSummaryFileWriter CreateSummaryDbWriter ImportEvent
""")
PYTHON = _names("PyFunc PyFuncStateless EagerPyFunc")
NETWORK = _names("""
    RpcClient RpcCall RpcServer RpcServerStart RpcServerRegister DataServiceDataset DataServiceDatasetV2
    DataServiceDatasetV3 DataServiceDatasetV4 RegisterDataset RegisterDatasetV2 FileSystemSetConfiguration
    ConfigureDistributedTPU _ConfigureDistributedTPU ConfigureAndInitializeGlobalTPU
""")
# A graph inside a string is one that nobody has looked at.
PROCESS = _names("Abort DatasetFromGraph XlaCustomCall XlaCustomCallV2")

FORBIDDEN = FILES_READ | FILES_WRITTEN | PYTHON | NETWORK | PROCESS

# Allowed where the file is one of the model's own; the number is the input that names it.
READ_ASSET = {"InitializeTableFromTextFile": 1, "InitializeTableFromTextFileV2": 1}
READ_VARIABLES = {"RestoreV2": 0, "Restore": 0, "RestoreSlice": 0}


def _text(node: Any, attribute: str) -> str:
    found: bytes = node.attr[attribute].s
    return found.decode("utf-8", "replace")


# Ops that reach outside only as their attributes say.
WHEN: dict[str, Callable[[Any], bool]] = {
    "PrintV2": lambda node: _text(node, "output_stream").startswith("file:"),
    "DecodeProtoV2": lambda node: not _text(node, "descriptor_source").startswith(("local:", "bytes:")),
    "EncodeProto": lambda node: not _text(node, "descriptor_source").startswith(("local:", "bytes:")),
    "FixedUnigramCandidateSampler": lambda node: bool(_text(node, "vocab_file")),
}
DEBUG_OPS = ("DebugIdentity", "DebugNanCount", "DebugNumericSummary")


def reaches_outside(node: Any) -> bool:
    """Whether a node reads, writes or calls anything outside the graph, whatever its inputs."""
    if node.op in FORBIDDEN:
        return True
    if node.op.startswith(DEBUG_OPS):
        return bool(node.attr["debug_urls"].list.s)
    when = WHEN.get(node.op)
    return when is not None and when(node)
