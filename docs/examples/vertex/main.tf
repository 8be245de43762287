terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.0"
    }
  }
}

variable "project" {
  description = "The project of Google Cloud."
  type        = string
}

variable "region" {
  description = "Where everything is."
  type        = string
  default     = "europe-west4"
}

variable "name" {
  description = "What repository, model and endpoint are called."
  type        = string
  default     = "distilbert"
}

variable "machine_type" {
  description = "The machine; models with all 8 bits want one with VNNI, such as c3 or n2."
  type        = string
  default     = "n2-standard-2"
}

variable "max_replicas" {
  description = "Most machines at a time."
  type        = number
  default     = 2
}

provider "google" {
  project = var.project
  region  = var.region
}

locals {
  image = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}/${var.name}"
}

resource "google_artifact_registry_repository" "images" {
  location      = var.region
  repository_id = var.name
  format        = "DOCKER"
}

resource "google_vertex_ai_endpoint" "model" {
  name         = var.name
  display_name = var.name
  location     = var.region
}

output "image" {
  description = "What the container has to be pushed as."
  value       = local.image
}

output "next" {
  description = "What registers the model and deploys it, once the container is pushed."
  value       = <<-EOT
    gcloud ai models upload --project=${var.project} --region=${var.region} --model-id=${var.name} --display-name=${var.name} --container-image-uri=${local.image} --container-health-route=/health --container-predict-route=/predict
    gcloud ai endpoints deploy-model ${google_vertex_ai_endpoint.model.name} --project=${var.project} --region=${var.region} --model=${var.name} --display-name=${var.name} --machine-type=${var.machine_type} --max-replica-count=${var.max_replicas} --traffic-split=0=100
  EOT
}
