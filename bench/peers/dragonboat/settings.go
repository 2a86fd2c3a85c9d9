package main

import "github.com/lni/dragonboat/v3/config"

const (
	rttMs             = 20
	electionRtt       = 50
	heartbeatRtt      = 5
	compactionEntries = 10_000
)

// expertConfig is Dragonboat's own default, or what was the fastest on a machine with two cores.
func expertConfig(isTuned bool) config.ExpertConfig {
	expert := config.GetDefaultExpertConfig()
	if isTuned {
		expert.LogDB.Shards = 1
		expert.Engine.ExecShards = 2
		expert.Engine.CommitShards = 2
		expert.Engine.ApplyShards = 2
		expert.Engine.SnapshotShards = 2
		expert.Engine.CloseShards = 2
	}
	return expert
}

func shardConfig(shard, replica uint64, snapshotEntries uint64) config.Config {
	return config.Config{
		ClusterID: shard, NodeID: replica, CheckQuorum: true, ElectionRTT: electionRtt, HeartbeatRTT: heartbeatRtt,
		SnapshotEntries: snapshotEntries, CompactionOverhead: compactionEntries,
	}
}
