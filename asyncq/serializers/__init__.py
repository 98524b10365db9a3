"""How values become bytes, and come back equal and of the same type.

The wire is msgpack, and three rules shape what is laid on top of it:

1. **No code of the sender's, no pickle.** What msgpack knows travels as it is. The other built-in values
   (datetime, UUID, Decimal ...) travel as extension types out of a fixed table. An instance of a dataclass or
   a model travels as its fields under a short tag, which is looked up among the classes that the annotations
   of the *reader* name, and nowhere else; a reader without them sees a dict.
2. **No recursion in C.** A tuple, set, dict with other keys than strings, or instance is an array whose first
   item is a container tag (extension 1, one byte). The obvious layout, an extension that holds packed bytes,
   makes `unpackb` call itself, and each call takes 40 kB of C stack: 64 levels end a thread of 2 MB with a
   segmentation fault (measured). With container tags everything is built from the inside out by the one
   `list_hook` of one call.
3. **No `default` hook.** A msgpack Packer that is entered again from its own hook writes garbage without a
   word. One look decides whether a value is native; only if it is not, a walk builds a tree that is.

The way of an argument, from the task to the wire and back, through the files of this package:

    codecs -> annotations -> models, records, shapes    what the annotations add: classes <-> instances
                          -> hints, fingerprints        what they mean, and whether two classes are the same
           -> packing, unpacking                        values <-> bytes
              -> trees, extensions, zones, places       container tags, built-in values, errors that name a
              place
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
