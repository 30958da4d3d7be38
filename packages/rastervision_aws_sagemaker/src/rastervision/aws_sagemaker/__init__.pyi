from .aws_sagemaker_runner import AWS_SAGEMAKER as AWS_SAGEMAKER
from .aws_sagemaker_runner import AWSSageMakerRunner as AWSSageMakerRunner
from .settings import SageMakerSettings as SageMakerSettings
