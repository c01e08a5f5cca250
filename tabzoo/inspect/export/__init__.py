"""A detector or a backbone as an ONNX file, proved to agree with what tabzoo computes."""
