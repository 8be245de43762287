"""NNCF, as the stages for OpenVINO use it."""
