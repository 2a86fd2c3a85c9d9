// Command dragonboat is one host of Dragonboat v3.3.8 in a benchmark run, the counterpart of bench/host.ts: the same
// state machine, the same closed loop inside of the leader's process, the same durability (every write is synced by the
// library's log on a majority before it counts). Its parent gives orders as lines on standard input and reads one JSON
// value for each on standard output.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/lni/dragonboat/v3"
	"github.com/lni/dragonboat/v3/client"
	"github.com/lni/dragonboat/v3/config"
	"github.com/lni/dragonboat/v3/logger"
	sm "github.com/lni/dragonboat/v3/statemachine"
)

// loggers of the library that would write to standard error.
var loggers = []string{
	"raft", "rsm", "transport", "dragonboat", "logdb", "raftpb", "config", "settings", "utils", "pebblekv", "raftio", "server",
	"fileutil", "vfs",
}

const readyTimeout = 120 * time.Second

type options struct {
	Shards          int    `json:"shards"`
	Payload         int    `json:"payload"`
	Inflight        int    `json:"inflight"`
	ReadPercent     int    `json:"readPercent"`
	Spread          bool   `json:"spread"`
	Sessions        bool   `json:"sessions"`
	Rate            int    `json:"rate"`
	WarmMs          int    `json:"warmMs"`
	DurationMs      int    `json:"durationMs"`
	SnapshotEntries uint64 `json:"snapshotEntries"`
	// What this peer alone knows.
	IsTuned bool   `json:"isTuned"`
	Machine string `json:"machine"`
}

type settings struct {
	ReplicaID uint64            `json:"replicaId"`
	Members   map[uint64]string `json:"members"`
	Dir       string            `json:"dir"`
	Options   options           `json:"options"`
	TLS       *certificates     `json:"tls"`
}

// certificates are paths of files; without them hosts speak plainly.
type certificates struct {
	CA   string `json:"ca"`
	Cert string `json:"cert"`
	Key  string `json:"key"`
}

type host struct {
	settings
	nh     *dragonboat.NodeHost
	mu     sync.Mutex
	stores map[uint64]*store
	shards []uint64
}

func main() {
	var s settings
	if err := json.Unmarshal([]byte(os.Args[1]), &s); err != nil {
		fail(err)
	}
	for _, name := range loggers {
		logger.GetLogger(name).SetLevel(logger.ERROR)
	}
	h := &host{settings: s, stores: make(map[uint64]*store)}
	if err := h.open(); err != nil {
		fail(err)
	}
	answer("serving")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch lines.Text() {
		case "place":
			h.place()
			answer("placed")
		case "measure":
			answer(h.measure())
		case "digests":
			answer(h.digests())
		default:
			h.nh.Stop()
			return
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func answer(value interface{}) {
	line, err := json.Marshal(value)
	if err != nil {
		fail(err)
	}
	os.Stdout.Write(append(line, '\n'))
}

func (h *host) open() error {
	expert := expertConfig(h.Options.IsTuned)
	cfg := config.NodeHostConfig{
		NodeHostDir: h.Dir, WALDir: h.Dir, RTTMillisecond: rttMs, RaftAddress: h.Members[h.ReplicaID], Expert: expert,
	}
	if h.TLS != nil {
		cfg.MutualTLS, cfg.CAFile, cfg.CertFile, cfg.KeyFile = true, h.TLS.CA, h.TLS.Cert, h.TLS.Key
	}
	nh, err := dragonboat.NewNodeHost(cfg)
	if err != nil {
		return err
	}
	h.nh = nh
	for shard := uint64(1); shard <= uint64(h.Options.Shards); shard++ {
		h.shards = append(h.shards, shard)
		if err := h.start(shard); err != nil {
			return err
		}
	}
	end := time.Now().Add(readyTimeout)
	for _, shard := range h.shards {
		for h.leader(shard) == 0 {
			if time.Now().After(end) {
				return fmt.Errorf("shard %d has no leader", shard)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}

func (h *host) start(shard uint64) error {
	made := func() *store {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.stores[shard] = newStore()
		return h.stores[shard]
	}
	members := make(map[uint64]dragonboat.Target)
	for id, address := range h.Members {
		members[id] = address
	}
	cfg := shardConfig(shard, h.ReplicaID, h.Options.SnapshotEntries)
	if h.Options.Machine == "regular" {
		return h.nh.StartCluster(members, false, func(uint64, uint64) sm.IStateMachine { return regular{made()} }, cfg)
	}
	create := func(uint64, uint64) sm.IConcurrentStateMachine { return concurrent{made()} }
	return h.nh.StartConcurrentCluster(members, false, create, cfg)
}

func (h *host) leader(shard uint64) uint64 {
	id, known, err := h.nh.GetLeaderID(shard)
	if err != nil || !known {
		return 0
	}
	return id
}

func (h *host) wanted(shard uint64) uint64 {
	if h.Options.Spread {
		return (shard-1)%3 + 1
	}
	return 1
}

// place moves the leaders to where the run wants them.
func (h *host) place() {
	for _, shard := range h.shards {
		for tries := 0; h.leader(shard) != h.wanted(shard); tries++ {
			if h.leader(shard) == h.ReplicaID && tries%50 == 0 {
				_ = h.nh.RequestLeaderTransfer(shard, h.wanted(shard))
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

func openSession(nh *dragonboat.NodeHost, shard uint64) *client.Session {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	session, err := nh.SyncGetSession(ctx, shard)
	if err != nil {
		fail(err)
	}
	return session
}

type snapshot struct {
	writes, reads uint64
	cpuSeconds    float64
	at            time.Time
}

func take(l *load) snapshot {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		fail(err)
	}
	cpu := float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
	return snapshot{l.writes.Load(), l.reads.Load(), cpu, time.Now()}
}

type sample struct {
	Writes       uint64    `json:"writes"`
	Reads        uint64    `json:"reads"`
	Seconds      float64   `json:"seconds"`
	CPUSeconds   float64   `json:"cpuSeconds"`
	Flushes      *float64  `json:"flushes"`
	LatenciesMs  []float64 `json:"latenciesMs"`
	Acknowledged uint64    `json:"acknowledged"`
	Unknown      uint64    `json:"unknown"`
	Version      string    `json:"version"`
}

func (h *host) measure() sample {
	var mine []uint64
	for _, shard := range h.shards {
		if h.wanted(shard) == h.ReplicaID {
			mine = append(mine, shard)
		}
	}
	l := startLoad(h.nh, mine, h.Options, 12345+uint32(h.ReplicaID))
	time.Sleep(time.Duration(h.Options.WarmMs) * time.Millisecond)
	l.recording.Store(true)
	before := take(l)
	time.Sleep(time.Duration(h.Options.DurationMs) * time.Millisecond)
	after := take(l)
	l.recording.Store(false)
	l.stopped.Store(true)
	l.users.Wait()
	return sample{
		Writes: after.writes - before.writes, Reads: after.reads - before.reads,
		Seconds: after.at.Sub(before.at).Seconds(), CPUSeconds: after.cpuSeconds - before.cpuSeconds,
		LatenciesMs: l.quantiles(0.5, 0.99, 0.999), Acknowledged: l.writes.Load(), Unknown: l.unknown.Load(),
		Version: runtime.Version(),
	}
}

type digest struct {
	ShardID uint64 `json:"shardId"`
	Applied uint64 `json:"applied"`
	Hash    string `json:"hash"`
}

func (h *host) digests() []digest {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]digest, 0, len(h.shards))
	for _, shard := range h.shards {
		applied, hash := h.stores[shard].digest()
		all = append(all, digest{shard, applied, fmt.Sprintf("%x", hash)})
	}
	return all
}
