"""An emulator of Google's object store, with what TensorStore needs and the package leaves out: generations of what it reads.

python tests/object_store.py PORT, with a bucket `ours`; prints a line when it answers.
"""

import sys
import time
from http import HTTPStatus

from gcp_storage_emulator.handlers import objects


def download(request, response, storage, *arguments, plain=objects.download, **options):
    """As the emulator's, and says the generation, or that it is the one that is known already."""
    plain(request, response, storage, *arguments, **options)
    if response.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        about = storage.get_file_obj(request.params["bucket_name"], request.params["object_id"])
        response["x-goog-generation"] = about["generation"]
        if about["generation"] in request.query.get("ifGenerationNotMatch", ()):
            response.status = HTTPStatus.NOT_MODIFIED
            response.write_file(b"")


objects.download = download

if __name__ == "__main__":
    from gcp_storage_emulator.server import create_server  # which takes the functions as they are by then

    create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="ours").start()
    print(flush=True)
    time.sleep(3600)
