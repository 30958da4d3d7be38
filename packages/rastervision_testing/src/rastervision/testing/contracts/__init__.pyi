from .evaluator import EvaluatorContract as EvaluatorContract
from .file_system import FileSystemContract as FileSystemContract
from .file_system import ReadOnlyFileSystemContract as ReadOnlyFileSystemContract
from .label_source import LabelSourceContract as LabelSourceContract
from .label_store import LabelStoreContract as LabelStoreContract
from .raster_source import RasterSourceContract as RasterSourceContract
from .runner import RunnerContract as RunnerContract
