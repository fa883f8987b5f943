"""The messages of TensorFlow Serving's services, and the few of TensorFlow's that they carry.

Pure values, safe on any thread. Fields that nothing here reads are left out: protobuf passes over them. Examples are
`bytes` here, which is the same on the wire: they go into the model as they came.
"""

from __future__ import annotations

from rowserve.graphs.proto_tables import ProtoTable, message_classes

GOOGLE = ProtoTable(
    "google.protobuf",
    {"Int64Value": "int64 value = 1", "Any": "string type_url = 1; bytes value = 2"},
)

TENSORFLOW = ProtoTable(
    "tensorflow",
    {
        "TensorShapeProto": "repeated Dim dim = 2; bool unknown_rank = 3",
        "TensorShapeProto.Dim": "int64 size = 1; string name = 2",
        "TensorProto": """
            DataType dtype = 1; TensorShapeProto tensor_shape = 2; int32 version_number = 3; bytes tensor_content = 4;
            repeated float float_val = 5; repeated double double_val = 6; repeated int32 int_val = 7;
            repeated bytes string_val = 8; repeated float scomplex_val = 9; repeated int64 int64_val = 10;
            repeated bool bool_val = 11; repeated double dcomplex_val = 12; repeated int32 half_val = 13;
            repeated uint32 uint32_val = 16; repeated uint64 uint64_val = 17""",
        "TensorInfo": "string name = 1 of encoding; DataType dtype = 2; TensorShapeProto tensor_shape = 3",
        "SignatureDef": """
            map<string, TensorInfo> inputs = 1; map<string, TensorInfo> outputs = 2; string method_name = 3;
            map<string, TensorProto> defaults = 4""",
        "BytesList": "repeated bytes value = 1",
        "FloatList": "repeated float value = 1",
        "Int64List": "repeated int64 value = 1",
        "Feature": """
            BytesList bytes_list = 1 of kind; FloatList float_list = 2 of kind; Int64List int64_list = 3 of kind""",
        "Features": "map<string, Feature> feature = 1",
        "Example": "Features features = 1",
    },
    {
        "DataType": """
            DT_INVALID = 0; DT_FLOAT = 1; DT_DOUBLE = 2; DT_INT32 = 3; DT_UINT8 = 4; DT_INT16 = 5; DT_INT8 = 6;
            DT_STRING = 7; DT_COMPLEX64 = 8; DT_INT64 = 9; DT_BOOL = 10; DT_QINT8 = 11; DT_QUINT8 = 12; DT_QINT32 = 13;
            DT_BFLOAT16 = 14; DT_QINT16 = 15; DT_QUINT16 = 16; DT_UINT16 = 17; DT_COMPLEX128 = 18; DT_HALF = 19;
            DT_RESOURCE = 20; DT_VARIANT = 21; DT_UINT32 = 22; DT_UINT64 = 23"""
    },
)

ERRORS = ProtoTable(
    "tensorflow.error",
    {},
    {
        "Code": """
            OK = 0; CANCELLED = 1; UNKNOWN = 2; INVALID_ARGUMENT = 3; DEADLINE_EXCEEDED = 4; NOT_FOUND = 5;
            ALREADY_EXISTS = 6; PERMISSION_DENIED = 7; RESOURCE_EXHAUSTED = 8; FAILED_PRECONDITION = 9; ABORTED = 10;
            OUT_OF_RANGE = 11; UNIMPLEMENTED = 12; INTERNAL = 13; UNAVAILABLE = 14; DATA_LOSS = 15;
            UNAUTHENTICATED = 16"""
    },
)

SERVING = ProtoTable(
    "tensorflow.serving",
    {
        "ModelSpec": """
            string name = 1; google.protobuf.Int64Value version = 2 of version_choice; string signature_name = 3;
            string version_label = 4 of version_choice""",
        "ExampleList": "repeated bytes examples = 1",
        "ExampleListWithContext": "repeated bytes examples = 1; bytes context = 2",
        "Input": "ExampleList example_list = 1 of kind; ExampleListWithContext example_list_with_context = 2 of kind",
        "PredictRequest": """
            ModelSpec model_spec = 1; map<string, tensorflow.TensorProto> inputs = 2;
            repeated string output_filter = 3""",
        "PredictResponse": "map<string, tensorflow.TensorProto> outputs = 1; ModelSpec model_spec = 2",
        "Class": "string label = 1; float score = 2",
        "Classifications": "repeated Class classes = 1",
        "ClassificationResult": "repeated Classifications classifications = 1",
        "ClassificationRequest": "ModelSpec model_spec = 1; Input input = 2",
        "ClassificationResponse": "ClassificationResult result = 1; ModelSpec model_spec = 2",
        "Regression": "float value = 1",
        "RegressionResult": "repeated Regression regressions = 1",
        "RegressionRequest": "ModelSpec model_spec = 1; Input input = 2",
        "RegressionResponse": "RegressionResult result = 1; ModelSpec model_spec = 2",
        "InferenceTask": "ModelSpec model_spec = 1; string method_name = 2",
        "InferenceResult": """
            ModelSpec model_spec = 1; ClassificationResult classification_result = 2 of result;
            RegressionResult regression_result = 3 of result""",
        "MultiInferenceRequest": "repeated InferenceTask tasks = 1; Input input = 2",
        "MultiInferenceResponse": "repeated InferenceResult results = 1",
        "SignatureDefMap": "map<string, tensorflow.SignatureDef> signature_def = 1",
        "GetModelMetadataRequest": "ModelSpec model_spec = 1; repeated string metadata_field = 2",
        "GetModelMetadataResponse": "ModelSpec model_spec = 1; map<string, google.protobuf.Any> metadata = 2",
        "StatusProto": "tensorflow.error.Code error_code = 1; string error_message = 2",
        "GetModelStatusRequest": "ModelSpec model_spec = 1",
        "ModelVersionStatus": "int64 version = 1; State state = 2; StatusProto status = 3",
        "GetModelStatusResponse": "repeated ModelVersionStatus model_version_status = 1",
    },
    {
        "ModelVersionStatus.State": """
            UNKNOWN = 0; START = 10; LOADING = 20; AVAILABLE = 30; UNLOADING = 40; END = 50""",
    },
)

MESSAGES = message_classes(GOOGLE, TENSORFLOW, ERRORS, SERVING)

Any = MESSAGES["google.protobuf.Any"]
TensorProto = MESSAGES["tensorflow.TensorProto"]
TensorInfo = MESSAGES["tensorflow.TensorInfo"]
SignatureDef = MESSAGES["tensorflow.SignatureDef"]
Example = MESSAGES["tensorflow.Example"]
PredictRequest = MESSAGES["tensorflow.serving.PredictRequest"]
PredictResponse = MESSAGES["tensorflow.serving.PredictResponse"]
ClassificationResult = MESSAGES["tensorflow.serving.ClassificationResult"]
ClassificationRequest = MESSAGES["tensorflow.serving.ClassificationRequest"]
ClassificationResponse = MESSAGES["tensorflow.serving.ClassificationResponse"]
RegressionResult = MESSAGES["tensorflow.serving.RegressionResult"]
RegressionRequest = MESSAGES["tensorflow.serving.RegressionRequest"]
RegressionResponse = MESSAGES["tensorflow.serving.RegressionResponse"]
InferenceResult = MESSAGES["tensorflow.serving.InferenceResult"]
MultiInferenceRequest = MESSAGES["tensorflow.serving.MultiInferenceRequest"]
MultiInferenceResponse = MESSAGES["tensorflow.serving.MultiInferenceResponse"]
SignatureDefMap = MESSAGES["tensorflow.serving.SignatureDefMap"]
GetModelMetadataRequest = MESSAGES["tensorflow.serving.GetModelMetadataRequest"]
GetModelMetadataResponse = MESSAGES["tensorflow.serving.GetModelMetadataResponse"]
GetModelStatusRequest = MESSAGES["tensorflow.serving.GetModelStatusRequest"]
GetModelStatusResponse = MESSAGES["tensorflow.serving.GetModelStatusResponse"]
