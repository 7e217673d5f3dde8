#!/usr/bin/env python3
"""Touchstone from elsewhere: no code of ours, only the .proto files, Kafka, and the rules of this page.

Sends references to a media topic, in protobuf and in JSON, and prints the verdicts as they come, one JSON object a
line. Ends with 0 when every reference has its verdict, with 75 when the time is over first, and with 69 when the
broker or a topic is not there.

    .deps/python/bin/python tests/elsewhere/client.py --bootstrap 127.0.0.1:9092 --bucket media --key a.jpg --key b.jpg

`.ci/setup --tests` makes .deps/python (confluent-kafka, protobuf, grpcio-tools; pinned in .ci/python.txt).
"""

import argparse
import importlib
import json
import sys
import tempfile
import time
import uuid
from pathlib import Path

import confluent_kafka as kafka
from google.protobuf import json_format
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parents[2] / "proto"

PRODUCER = {
    # A reference is acknowledged once every in-sync replica has it, and a retried send is written once.
    "acks": "all",
    "enable.idempotence": True,
    # Java's default, and Touchstone's. librdkafka's own default (consistent_random, CRC32) would put a key elsewhere,
    # and the references of one media would lie in two partitions.
    "partitioner": "murmur2_random",
}
CONSUMER = {
    # Without it a reader sees verdicts of transactions that were aborted: some media would have two.
    "isolation.level": "read_committed",
    # Positions are ours: it reads every partition, from where it was before the first reference was sent.
    "enable.auto.commit": False,
    "enable.partition.eof": False,
}


def messages():
    """The generated modules of media.proto and verdict.proto."""
    files = ["touchstone/v1/media.proto", "touchstone/v1/verdict.proto"]
    # The well-known types' .proto files come with grpcio-tools, their modules with protobuf.
    known = Path(protoc.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory(prefix="touchstone-proto-") as folder:
        if protoc.main(["protoc", f"-I{PROTO}", f"-I{known}", f"--python_out={folder}", *files]):
            raise SystemExit(f"the .proto files in {PROTO} do not compile")
        sys.path.insert(0, folder)
        return [importlib.import_module(f"touchstone.v1.{name}_pb2") for name in ("media", "verdict")]


def key_of(tenant, media_id):
    """All records of one media share a partition; `|` cannot occur in a tenant."""
    return f"{tenant}|{media_id}".encode()


def send(arguments, media_pb2):
    """Sends each object once in each encoding; answers the references' media ids."""
    producer = kafka.Producer({"bootstrap.servers": arguments.bootstrap, **PRODUCER})
    topic = arguments.topic or f"touchstone.media.{arguments.lane}.v1"
    run = arguments.id or uuid.uuid4().hex[:8]
    sent, refused = {}, []

    def delivered(error, record):
        if error:
            refused.append(f"{record.key()}: {error}")
        else:
            place = {"topic": record.topic(), "partition": record.partition(), "offset": record.offset()}
            say("sent", key=record.key().decode(), **place)

    for encoding in arguments.encoding:
        for number, name in enumerate(arguments.key):
            reference = media_pb2.MediaReference(tenant=arguments.tenant, media_id=f"{run}-{encoding}-{number}")
            reference.image.bucket, reference.image.object.key = arguments.bucket, name
            reference.faces = media_pb2.Faces.Value(f"FACES_{arguments.faces.upper()}")
            reference.lane = media_pb2.Lane.Value(f"LANE_{arguments.lane.upper()}")
            reference.labels["producer"] = "python"
            if encoding == "protobuf":
                content_type, value = b"application/x-protobuf", reference.SerializeToString()
            else:
                # A field that this version does not know, as a newer producer would send it: it is ignored.
                fields = {**json_format.MessageToDict(reference), "notYetKnown": True}
                content_type, value = b"application/json", json.dumps(fields).encode()
            producer.produce(
                topic,
                key=key_of(arguments.tenant, reference.media_id),
                value=value,
                headers={"content-type": content_type},
                on_delivery=delivered,
            )
            sent[reference.media_id] = encoding
    waiting = producer.flush(arguments.timeout)
    if refused or waiting:
        raise kafka.KafkaException(f"{waiting} references are not acknowledged; {'; '.join(refused)}")
    return sent


def follow(arguments):
    """A consumer of all partitions of the verdict topic, from their present ends on."""
    group = f"elsewhere-{uuid.uuid4()}"
    settings = {"bootstrap.servers": arguments.bootstrap, "group.id": group, **CONSUMER}
    consumer = kafka.Consumer(settings)
    topic = consumer.list_topics(arguments.verdicts, timeout=arguments.timeout).topics[arguments.verdicts]
    if topic.error:
        raise kafka.KafkaException(topic.error)
    places = []
    for partition in topic.partitions:
        place = kafka.TopicPartition(arguments.verdicts, partition)
        # With read_committed this is the last stable offset.
        _, place.offset = consumer.get_watermark_offsets(place, timeout=arguments.timeout)
        places.append(place)
    consumer.assign(places)
    return consumer


def verdicts(arguments, consumer, sent, verdict_pb2):
    """Prints each verdict of what was sent; answers what has none."""
    waiting, deadline = dict(sent), time.monotonic() + arguments.timeout
    while waiting and (left := deadline - time.monotonic()) > 0:
        record = consumer.poll(left)
        if record is None:
            break
        if record.error():
            raise kafka.KafkaException(record.error())
        verdict = verdict_pb2.Verdict.FromString(record.value())
        if verdict.tenant == arguments.tenant and verdict.media_id in sent:
            place = {"partition": record.partition(), "offset": record.offset()}
            encoding = waiting.pop(verdict.media_id, "again")
            say("verdict", sent_as=encoding, **place, verdict=json_format.MessageToDict(verdict))
    return waiting


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def parse():
    parser = argparse.ArgumentParser(description="Sends media references and prints their verdicts.")
    parser.add_argument("--bootstrap", required=True, help="a broker, HOST:PORT")
    parser.add_argument("--bucket", required=True, help="the pictures' bucket")
    parser.add_argument("--key", required=True, action="append", help="a picture; may be repeated")
    parser.add_argument("--tenant", default="default")
    parser.add_argument("--lane", default="standard", choices=["live", "standard", "bulk"])
    parser.add_argument("--faces", default="detect", choices=["detect", "cropped"], help="what the pictures show")
    parser.add_argument("--encoding", nargs="+", default=["protobuf", "json"], choices=["protobuf", "json"])
    parser.add_argument("--id", help="what the media ids begin with; random")
    parser.add_argument("--topic", help="the media topic, where it is not the lane's usual one")
    parser.add_argument("--verdicts", default="touchstone.verdicts.v1", help="the verdict topic")
    parser.add_argument("--timeout", type=float, default=60, help="seconds until it gives up")
    return parser.parse_args()


def main():
    arguments = parse()
    media_pb2, verdict_pb2 = messages()
    try:
        consumer = follow(arguments)
        sent = send(arguments, media_pb2)
        missing = verdicts(arguments, consumer, sent, verdict_pb2)
        consumer.close()
    except kafka.KafkaException as error:
        why = error.args[0]
        print(f"{arguments.bootstrap}: {why.str() if isinstance(why, kafka.KafkaError) else why}", file=sys.stderr)
        return 69
    for media_id in missing:
        print(f"no verdict of {media_id} within {arguments.timeout} s", file=sys.stderr)
    return 75 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
