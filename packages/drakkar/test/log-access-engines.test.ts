/** The same suite again, on hosts with two engines each, of which the second has the shards: callers cannot tell. */
import { TestCluster } from './support.ts';

TestCluster.defaultEngines = 2;
TestCluster.hasBallast = true;
await import('./log-access.test.ts');
