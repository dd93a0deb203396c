import pytest
import torch

from melcnn.kernels import cuda


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/cuda/" in str(item.path):
            item.add_marker(pytest.mark.cuda)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="there is no CUDA here"))


@pytest.fixture(autouse=True)
def fp32():
    with cuda.computing_in("fp32"):
        yield


@pytest.fixture(scope="session")
def noise():
    """Features of the study's shape and labels, of which an epoch has two sizes of a batch."""
    x = torch.randn(200, 80, 101, generator=torch.Generator().manual_seed(1)).cuda()
    return x, torch.arange(200, device="cuda") % 2
