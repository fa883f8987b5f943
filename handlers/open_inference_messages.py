"""The small messages of the Open Inference Protocol's gRPC service, with Triton's statistics and configuration.

Pure values, safe on any thread. Those of inference itself are read and written by hand (`open_inference_grpc`). Fields
that nothing here writes are left out: protobuf passes over them.
"""

from __future__ import annotations

from rowserve.graphs.proto_tables import ProtoTable, message_classes

INFERENCE = ProtoTable(
    "inference",
    {
        "ServerLiveResponse": "bool live = 1",
        "ServerReadyResponse": "bool ready = 1",
        "ModelReadyResponse": "bool ready = 1",
        "ServerMetadataResponse": "string name = 1; string version = 2; repeated string extensions = 3",
        "ModelMetadataResponse": """
            string name = 1; repeated string versions = 2; string platform = 3; repeated TensorMetadata inputs = 4;
            repeated TensorMetadata outputs = 5; map<string, InferParameter> parameters = 6""",
        "TraceSettingResponse": "map<string, TraceSettingResponse.SettingValue> settings = 1",
        "TraceSettingResponse.SettingValue": "repeated string value = 1",
        "LogSettingsResponse": "map<string, LogSettingsResponse.SettingValue> settings = 1",
        "LogSettingsResponse.SettingValue": """
            bool bool_param = 1 of parameter_choice; uint32 uint32_param = 2 of parameter_choice;
            string string_param = 3 of parameter_choice""",
        "InferParameter": "string string_param = 3 of parameter_choice",
        "ModelMetadataResponse.TensorMetadata": "string name = 1; string datatype = 2; repeated int64 shape = 3",
        "RepositoryIndexResponse": "repeated ModelIndex models = 1",
        "RepositoryIndexResponse.ModelIndex": """
            string name = 1; string version = 2; string state = 3; string reason = 4""",
        "StatisticDuration": "uint64 count = 1; uint64 ns = 2",
        "InferStatistics": """
            StatisticDuration success = 1; StatisticDuration fail = 2; StatisticDuration queue = 3;
            StatisticDuration compute_input = 4; StatisticDuration compute_infer = 5;
            StatisticDuration compute_output = 6; StatisticDuration cache_hit = 7; StatisticDuration cache_miss = 8""",
        "InferBatchStatistics": """
            uint64 batch_size = 1; StatisticDuration compute_input = 2; StatisticDuration compute_infer = 3;
            StatisticDuration compute_output = 4""",
        "InferResponseStatistics": "StatisticDuration success = 3",
        "MemoryUsage": "string type = 1; int64 id = 2; uint64 byte_size = 3",
        "ModelStatistics": """
            string name = 1; string version = 2; uint64 last_inference = 3; uint64 inference_count = 4;
            uint64 execution_count = 5; InferStatistics inference_stats = 6;
            repeated InferBatchStatistics batch_stats = 7; repeated MemoryUsage memory_usage = 8;
            map<string, InferResponseStatistics> response_stats = 9""",
        "ModelStatisticsResponse": "repeated ModelStatistics model_stats = 1",
        "ModelConfigResponse": "ModelConfig config = 1",
        "ModelConfig": """
            string name = 1; string platform = 2; int32 max_batch_size = 4; repeated ModelInput input = 5;
            repeated ModelOutput output = 6; string default_model_filename = 8;
            ModelDynamicBatching dynamic_batching = 11 of scheduling_choice; string backend = 17;
            ModelResponseCache response_cache = 24""",
        "ModelInput": "string name = 1; DataType data_type = 2; Format format = 3; repeated int64 dims = 4",
        "ModelOutput": "string name = 1; DataType data_type = 2; repeated int64 dims = 3; string label_filename = 4",
        "ModelDynamicBatching": """
            repeated int32 preferred_batch_size = 1; uint64 max_queue_delay_microseconds = 2""",
        "ModelResponseCache": "bool enable = 1",
    },
    {
        "DataType": """
            TYPE_INVALID = 0; TYPE_BOOL = 1; TYPE_UINT8 = 2; TYPE_UINT16 = 3; TYPE_UINT32 = 4; TYPE_UINT64 = 5;
            TYPE_INT8 = 6; TYPE_INT16 = 7; TYPE_INT32 = 8; TYPE_INT64 = 9; TYPE_FP16 = 10; TYPE_FP32 = 11;
            TYPE_FP64 = 12; TYPE_STRING = 13; TYPE_BF16 = 14""",
        "ModelInput.Format": "FORMAT_NONE = 0; FORMAT_NHWC = 1; FORMAT_NCHW = 2",
    },
)
MESSAGES = {name.removeprefix("inference."): message for name, message in message_classes(INFERENCE).items()}
ServerLiveResponse = MESSAGES["ServerLiveResponse"]
ServerReadyResponse = MESSAGES["ServerReadyResponse"]
ModelReadyResponse = MESSAGES["ModelReadyResponse"]
ServerMetadataResponse = MESSAGES["ServerMetadataResponse"]
ModelMetadataResponse = MESSAGES["ModelMetadataResponse"]
ModelConfigResponse = MESSAGES["ModelConfigResponse"]
ModelStatisticsResponse = MESSAGES["ModelStatisticsResponse"]
TraceSettingResponse = MESSAGES["TraceSettingResponse"]
LogSettingsResponse = MESSAGES["LogSettingsResponse"]
RepositoryIndexResponse = MESSAGES["RepositoryIndexResponse"]
