/** UDP of this machine, sealed with AES-256-GCM: 12 bytes of nonce, 16 of tag, and the sealed bytes. */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { isIPv6 } from 'node:net';
import type { DatagramKey, DatagramSocket } from '../env.ts';
import { formatAddress, parseAddress } from './address.ts';

const CIPHER = 'aes-256-gcm';
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

function seal(key: DatagramKey, bytes: Uint8Array): Uint8Array {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv(CIPHER, key, nonce);
  const sealed = Buffer.concat([cipher.update(bytes), cipher.final()]);
  return Buffer.concat([nonce, cipher.getAuthTag(), sealed]);
}

/** Undefined when the key is not the one that sealed it. */
function unseal(key: DatagramKey, datagram: Uint8Array): Uint8Array | undefined {
  if (datagram.length < NONCE_BYTES + TAG_BYTES) return undefined;
  const decipher = createDecipheriv(CIPHER, key, datagram.subarray(0, NONCE_BYTES));
  decipher.setAuthTag(datagram.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES));
  try {
    return Buffer.concat([decipher.update(datagram.subarray(NONCE_BYTES + TAG_BYTES)), decipher.final()]);
  } catch {
    return undefined;
  }
}

export function bindDatagrams(
  address: string,
  keys: readonly DatagramKey[],
  onDatagram: (fromAddress: string, bytes: Uint8Array) => void,
): Promise<DatagramSocket> {
  const { host, port } = parseAddress(address);
  const socket = createSocket({ type: isIPv6(host) ? 'udp6' : 'udp4', reuseAddr: false });
  const [sealingKey] = keys;
  let refused = 0;
  let isClosed = false;
  socket.on('message', (datagram, from) => {
    for (const key of keys) {
      const bytes = unseal(key, datagram);
      if (bytes === undefined) continue;
      onDatagram(formatAddress(from.address, from.port), bytes);
      return;
    }
    refused++;
  });
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.bind(port, host, () => {
      socket.off('error', reject);
      // What could not be sent is lost, as datagrams are.
      socket.on('error', () => {});
      socket.unref();
      resolve({
        address: formatAddress(host, socket.address().port),
        get refused() {
          return refused;
        },
        send(toAddress, bytes) {
          if (isClosed) return;
          const to = parseAddress(toAddress);
          socket.send(seal(sealingKey, bytes), to.port, to.host, () => {});
        },
        close() {
          if (isClosed) return Promise.resolve();
          isClosed = true;
          return new Promise((closed) => socket.close(() => closed()));
        },
      });
    });
  });
}
