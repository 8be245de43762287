terraform {
  required_version = ">= 1.5"
  required_providers {
    kubernetes = {
      source  = "hashicorp/kubernetes"
      version = ">= 2.30"
    }
  }
}

variable "name" {
  description = "What the service is called."
  type        = string
  default     = "distilbert"
}

variable "namespace" {
  description = "A namespace, which is made."
  type        = string
  default     = "models"
}

variable "storage_uri" {
  description = "Where the folder kserve/model was copied to."
  type        = string
}

variable "image" {
  description = "MLServer with the packages of kserve/model/requirements.txt."
  type        = string
}

variable "max_replicas" {
  description = "Most copies of the model at a time."
  type        = number
  default     = 4
}

variable "resources" {
  description = "Cores and memory of a copy; kserve/inference-service.yaml has what the model took."
  type        = map(string)
  default = {
    cpu    = "2"
    memory = "1Gi"
  }
}

resource "kubernetes_namespace" "models" {
  metadata {
    name = var.namespace
  }
}

resource "kubernetes_manifest" "service" {
  manifest = {
    apiVersion = "serving.kserve.io/v1beta1"
    kind       = "InferenceService"
    metadata = {
      name      = var.name
      namespace = kubernetes_namespace.models.metadata[0].name
    }
    spec = {
      predictor = {
        minReplicas = 1
        maxReplicas = var.max_replicas
        containers = [{
          name  = "kserve-container"
          image = var.image
          env = [
            { name = "STORAGE_URI", value = var.storage_uri },
            { name = "MLSERVER_MODELS_DIR", value = "/mnt/models" },
          ]
          ports = [{ containerPort = 8080, protocol = "TCP" }]
          resources = {
            requests = var.resources
            limits   = var.resources
          }
        }]
      }
    }
  }
}

output "service" {
  description = "What kubectl get inferenceservice is told."
  value       = "${kubernetes_namespace.models.metadata[0].name}/${var.name}"
}
