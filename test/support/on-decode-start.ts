import protobuf from 'protobufjs/minimal.js';

/**
 * Calls `callback` once, just before the next report of at least `minBytes` is decoded. It hooks the one place
 * where a decoder receives the bytes, because nothing else shows that a report has been read completely.
 */
export function onDecodeStart(minBytes: number, callback: () => void): void {
  // The first call replaces the function, which would undo the hook.
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
