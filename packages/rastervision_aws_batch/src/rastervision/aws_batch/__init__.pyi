from .aws_batch_runner import AWS_BATCH as AWS_BATCH
from .aws_batch_runner import AWSBatchRunner as AWSBatchRunner
from .settings import BatchSettings as BatchSettings
