"""The messages of a SavedModel's file, as far as anything here reads them, without TensorFlow.

Pure values, safe on any thread. Fields that are left out are kept as they came, so a message can be written again.
"""

from __future__ import annotations

from rowserve.graphs.proto_tables import ProtoTable, message_classes

GOOGLE = ProtoTable("google.protobuf", {"Any": "string type_url = 1; bytes value = 2"})

GRAPH = ProtoTable(
    "tensorflow",
    {
        "TensorShapeProto": "repeated Dim dim = 2; bool unknown_rank = 3",
        "TensorShapeProto.Dim": "int64 size = 1; string name = 2",
        "TensorProto": "int32 dtype = 1; TensorShapeProto tensor_shape = 2; repeated bytes string_val = 8",
        "NameAttrList": "string name = 1; map<string, AttrValue> attr = 2",
        "AttrValue": """
            ListValue list = 1 of value; bytes s = 2 of value; int64 i = 3 of value; int32 type = 6 of value;
            TensorProto tensor = 8 of value; NameAttrList func = 10 of value""",
        "AttrValue.ListValue": """
            repeated bytes s = 2; repeated int32 type = 6; repeated TensorShapeProto shape = 7;
            repeated NameAttrList func = 9""",
        "NodeDef": "string name = 1; string op = 2; repeated string input = 3; map<string, AttrValue> attr = 5",
        "OpDef": "string name = 1; repeated ArgDef input_arg = 2",
        "OpDef.ArgDef": "string name = 1",
        "FunctionDef": "OpDef signature = 1; repeated NodeDef node_def = 3; map<string, string> ret = 4",
        "FunctionDefLibrary": "repeated FunctionDef function = 1",
        "GraphDef": "repeated NodeDef node = 1; FunctionDefLibrary library = 2",
        "TensorInfo": """
            string name = 1 of encoding; Anything coo_sparse = 4 of encoding;
            Anything composite_tensor = 5 of encoding; int32 dtype = 2; TensorShapeProto tensor_shape = 3""",
        "SignatureDef": """
            map<string, TensorInfo> inputs = 1; map<string, TensorInfo> outputs = 2; string method_name = 3""",
        "Anything": "",
        "SaverDef": "string filename_tensor_name = 1; string restore_op_name = 3",
        "CollectionDef": "NodeList node_list = 1 of kind; AnyList any_list = 5 of kind",
        "CollectionDef.NodeList": "repeated string value = 1",
        "CollectionDef.AnyList": "repeated google.protobuf.Any value = 1",
        "AssetFileDef": "TensorInfo tensor_info = 1; string filename = 2",
        "ObjectReference": "int32 node_id = 1; string local_name = 2",
        "SavedFunction": "repeated string concrete_functions = 1",
        "SavedBareConcreteFunction": "string concrete_function_name = 1",
        "SavedConcreteFunction": "repeated int32 bound_inputs = 2",
        "SaveableObject": "int32 save_function = 2; int32 restore_function = 3",
        "SavedObject": """
            repeated ObjectReference children = 1; Anything user_object = 4 of kind; Anything asset = 5 of kind;
            SavedFunction function = 6 of kind; Anything variable = 7 of kind;
            SavedBareConcreteFunction bare_concrete_function = 8 of kind; Anything constant = 9 of kind;
            Anything resource = 10 of kind; map<string, SaveableObject> saveable_objects = 11;
            Anything captured_tensor = 12 of kind""",
        "SavedObjectGraph": """
            repeated SavedObject nodes = 1; map<string, SavedConcreteFunction> concrete_functions = 2""",
        "MetaInfoDef": "repeated string tags = 4",
        "MetaGraphDef": """
            MetaInfoDef meta_info_def = 1; GraphDef graph_def = 2; SaverDef saver_def = 3;
            map<string, CollectionDef> collection_def = 4; map<string, SignatureDef> signature_def = 5;
            repeated AssetFileDef asset_file_def = 6; SavedObjectGraph object_graph_def = 7""",
        "SavedModel": "int64 saved_model_schema_version = 1; repeated MetaGraphDef meta_graphs = 2",
    },
)

MESSAGES = message_classes(GOOGLE, GRAPH)
SavedModelMessage = MESSAGES["tensorflow.SavedModel"]
AssetFileDef = MESSAGES["tensorflow.AssetFileDef"]

# TensorFlow's dtypes by number; a number above 100 is a reference to the dtype a hundred below.
DTYPES = dict(
    enumerate(
        """float32 float64 int32 uint8 int16 int8 string complex64 int64 bool qint8 quint8 qint32 bfloat16 qint16
        quint16 uint16 complex128 float16 resource variant uint32 uint64""".split(),  # noqa: SIM905
        start=1,
    )
)


def dtype_name(number: int) -> str:
    """TensorFlow's name for a dtype's number."""
    if number > 100 and number - 100 in DTYPES:
        return f"{DTYPES[number - 100]}_ref"
    return DTYPES.get(number, f"number {number}")
