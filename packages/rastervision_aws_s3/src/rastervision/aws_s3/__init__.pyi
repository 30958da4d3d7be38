from .s3_file_system import AWS_S3 as AWS_S3
from .s3_file_system import S3FileSystem as S3FileSystem
from .s3_file_system import get_matching_s3_keys as get_matching_s3_keys
from .s3_file_system import get_matching_s3_objects as get_matching_s3_objects
from .s3_file_system import progressbar as progressbar
from .settings import AwsS3Settings as AwsS3Settings
