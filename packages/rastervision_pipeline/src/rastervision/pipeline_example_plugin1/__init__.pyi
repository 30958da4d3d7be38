from .sample_pipeline import SamplePipeline as SamplePipeline
from .sample_pipeline import SamplePipelineConfig as SamplePipelineConfig
from .sample_pipeline2 import MessageMaker as MessageMaker
from .sample_pipeline2 import MessageMakerConfig as MessageMakerConfig
from .sample_pipeline2 import SamplePipeline2 as SamplePipeline2
from .sample_pipeline2 import SamplePipeline2Config as SamplePipeline2Config
