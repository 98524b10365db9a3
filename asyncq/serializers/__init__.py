"""How values become bytes, and come back equal and of the same type.

The wire is msgpack, and three rules shape what is laid on top of it:

1. **No names of classes, no pickle.** What msgpack knows travels as it is. The other built-in values
   (datetime, UUID, Decimal ...) travel as extension types out of a fixed table. Enums, dataclasses and models
   travel as the plain tree of their fields; the annotations of the *reader* turn the tree back, so a reader
   without them sees the tree.
2. **No recursion in C.** A tuple, set or dict with other keys than strings is an array whose first item is a
   mark (extension 1, one byte). The obvious layout, an extension that holds packed bytes, makes `unpackb`
   call itself, and each call takes 40 kB of C stack: 64 levels end a thread of 2 MB with a segmentation fault
   (measured). With marks everything is built from the inside out by the one `list_hook` of one call.
3. **No `default` hook.** A msgpack Packer that is entered again from its own hook writes garbage without a
   word. One look decides whether a value is native; only if it is not, a walk builds a tree that is.

The way of an argument, from the task to the wire and back, through the files of this package:

    codecs -> annotations -> classes, shapes      what the annotations add: classes <-> plain trees
           -> packing, unpacking                  values <-> bytes
              -> trees, extensions, places        marks and choices, built-in values, errors that name a place
"""

from asyncq.serializers.codecs import (
    PLAIN_ARGUMENTS,
    PLAIN_VALUE,
    ArgumentCodec,
    ValueCodec,
    in_front,
    in_list,
)
from asyncq.serializers.packing import dumps
from asyncq.serializers.unpacking import loads
from asyncq.serializers.verbatim import PackedArgument, PackedValue

__all__ = [
    "PLAIN_ARGUMENTS",
    "PLAIN_VALUE",
    "ArgumentCodec",
    "PackedArgument",
    "PackedValue",
    "ValueCodec",
    "dumps",
    "in_front",
    "in_list",
    "loads",
]
