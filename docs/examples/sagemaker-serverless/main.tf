terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "name" {
  description = "What model and endpoint are called."
  type        = string
  default     = "distilbert"
}

variable "bucket" {
  description = "A bucket that is there; the archive is put into it."
  type        = string
}

variable "archive" {
  description = "model.tar.gz of the layout sagemaker."
  type        = string
}

variable "image" {
  description = "A container of AWS with PyTorch for inference, in the registry of your region."
  type        = string
}

variable "memory_mb" {
  description = "Memory of the endpoint: twice what the model card says a process took, at least 1024."
  type        = number
  default     = 2048
}

variable "max_concurrency" {
  description = "Requests at a time."
  type        = number
  default     = 5
}

resource "aws_s3_object" "archive" {
  bucket      = var.bucket
  key         = "${var.name}/model.tar.gz"
  source      = var.archive
  source_hash = filesha256(var.archive)
}

data "aws_iam_policy_document" "assumed" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["sagemaker.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "allowed" {
  statement {
    actions   = ["s3:GetObject"]
    resources = ["arn:aws:s3:::${var.bucket}/${aws_s3_object.archive.key}"]
  }
  statement {
    actions = [
      "ecr:BatchGetImage",
      "ecr:GetAuthorizationToken",
      "ecr:GetDownloadUrlForLayer",
      "logs:CreateLogGroup",
      "logs:CreateLogStream",
      "logs:PutLogEvents",
    ]
    resources = ["*"]
  }
}

resource "aws_iam_role" "model" {
  name               = "${var.name}-model"
  assume_role_policy = data.aws_iam_policy_document.assumed.json
}

resource "aws_iam_role_policy" "model" {
  role   = aws_iam_role.model.id
  policy = data.aws_iam_policy_document.allowed.json
}

# Without a name of its own, a new model is made before the old one goes.
resource "aws_sagemaker_model" "model" {
  execution_role_arn = aws_iam_role.model.arn

  primary_container {
    image          = var.image
    model_data_url = "s3://${var.bucket}/${aws_s3_object.archive.key}"
    environment = {
      SAGEMAKER_PROGRAM = "inference.py"
    }
  }

  depends_on = [aws_iam_role_policy.model]

  lifecycle {
    create_before_destroy = true
    replace_triggered_by  = [aws_s3_object.archive]
  }
}

resource "aws_sagemaker_endpoint_configuration" "model" {
  name_prefix = "${var.name}-"

  production_variants {
    variant_name = "only"
    model_name   = aws_sagemaker_model.model.name

    serverless_config {
      memory_size_in_mb = var.memory_mb
      max_concurrency   = var.max_concurrency
    }
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_sagemaker_endpoint" "model" {
  name                 = var.name
  endpoint_config_name = aws_sagemaker_endpoint_configuration.model.name
}

output "endpoint" {
  description = "What invoke-endpoint is told."
  value       = aws_sagemaker_endpoint.model.name
}
