/** Both transports keep the one contract. */
import { MemoryHub } from 'drakkar/testing';
import { createTcpTransport } from '../../src/transport/tcp.ts';
import { SecuredPair } from './secured.ts';
import { TestPair, transportCompliance } from './compliance.ts';

transportCompliance('tcp', () => new TestPair(createTcpTransport));
transportCompliance('memory', () => new TestPair(new MemoryHub().createTransport));
transportCompliance('tcp with certificates', () => new SecuredPair());
