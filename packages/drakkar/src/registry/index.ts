/** The registry that a host's options ask for. */
import { createGossipRegistry, type GossipOptions } from './gossip.ts';
import { createStaticRegistry, type Registry, type RegistryContext } from './registry.ts';

export interface RegistryOptions {
  readonly gossip?: GossipOptions;
  readonly registry?: (context: RegistryContext) => Registry;
}

export function createRegistry({ gossip, registry }: RegistryOptions, context: RegistryContext): Registry {
  if (registry !== undefined) return registry(context);
  return (gossip === undefined ? createStaticRegistry : createGossipRegistry(gossip))(context);
}
