"""Encodes values as bytes and decodes them again: they come back equal and of the same type. Knows no Redis
and no loop; codecs may be used on any thread.

The wire is msgpack, with three rules on top of it:

1. **No code from the sender, no pickle.** What msgpack knows travels as it is. The other built-in values
   (datetime, UUID, Decimal ...) travel as extension types from a fixed table. An instance of a dataclass or a
   model travels as its fields and a short tag. The reader looks the tag up among the classes that its own
   annotations name, and nowhere else. A reader without annotations gets a dict.
2. **No recursion in C.** A tuple, a set, a dict with other keys than strings, or an instance is an array
   whose first item is a container tag (extension 1, one byte). The obvious layout would be an extension that
   holds packed bytes. It makes `unpackb` call itself, and each call takes 40 kB of C stack: 64 levels end a
   thread of 2 MB with a segmentation fault (measured). With container tags, the one `list_hook` of one call
   builds everything from the inside out.
3. **No `default` hook.** A msgpack Packer that is entered again from its own hook writes garbage without an
   error. So a quick check decides whether a value is native; only for other values, a walk builds a tree
   that is.

The way of an argument, from the task to the wire and back, through the modules of this package:

    codecs -> annotations -> type_codecs, dataclass_codecs, models    classes <-> instances on the wire
                          -> hints, fingerprints       what annotations mean; whether two classes are the same
           -> packing, unpacking                       values <-> bytes
              -> trees, extensions, zones              container tags, built-in values
              -> value_paths                           errors that name where a value is
"""

from asyncq.serializers.codecs import (
    PLAIN_ARGUMENTS,
    PLAIN_VALUE,
    ArgumentCodec,
    PackedArgument,
    PackedValue,
    ValueCodec,
    in_front,
    in_list,
)
from asyncq.serializers.extensions import BrokenText
from asyncq.serializers.packing import dumps
from asyncq.serializers.policy import Policy
from asyncq.serializers.unpacking import loads

__all__ = [
    "PLAIN_ARGUMENTS",
    "PLAIN_VALUE",
    "ArgumentCodec",
    "BrokenText",
    "PackedArgument",
    "PackedValue",
    "Policy",
    "ValueCodec",
    "dumps",
    "in_front",
    "in_list",
    "loads",
]
