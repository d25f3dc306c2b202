from rtsx.errors import BundleError
from rtsx.model.source import refuse_module, refuse_onnx


def test_refusals_say_what_else_to_do():
    assert isinstance(refuse_onnx("Net"), BundleError)
    assert "Net is a torch network and has no ONNX file. Run it with backend='eager'" in str(refuse_onnx("Net"))
    assert "backend='onnx' or 'openvino'" in str(refuse_module())
