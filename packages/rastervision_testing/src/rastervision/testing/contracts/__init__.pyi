from .file_system import FileSystemContract as FileSystemContract
from .file_system import ReadOnlyFileSystemContract as ReadOnlyFileSystemContract
from .raster_source import RasterSourceContract as RasterSourceContract
from .runner import RunnerContract as RunnerContract
