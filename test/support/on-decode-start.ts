import protobuf from 'protobufjs/minimal.js';

/**
 * Calls `then` once, in the moment when the next report of at least `leastBytes` is about to be decoded: at the one
 * place where a decoder takes hold of the bytes, since from outside nothing shows that a report was read whole.
 */
export function onDecodeStart(minBytes: number, callback: () => void): void {
  // At its first call it puts another function in its own place, which would undo this.
  protobuf.Reader.create(Buffer.alloc(0));
  const create = protobuf.Reader.create.bind(protobuf.Reader);
  protobuf.Reader.create = (bytes) => {
    if (bytes.length >= minBytes) {
      protobuf.Reader.create = create;
      callback();
    }
    return create(bytes);
  };
}
