package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v3"
	"github.com/lni/dragonboat/v3/client"
)

const (
	// keys over all shards, as in bench/options.ts.
	keys = 10_000
	// One request of so many is timed, as in bench/clients.ts.
	timedEvery     = 32
	requestTimeout = 60 * time.Second
	samplesPerUser = 1 << 12
)

// load is the closed loop inside of a host's process: each user has one request under way, on shards that this host leads.
type load struct {
	// All that were answered, also before and after the measurement.
	writes, reads atomic.Uint64
	// Writes that may or may not have been applied.
	unknown   atomic.Uint64
	stopped   atomic.Bool
	recording atomic.Bool
	users     sync.WaitGroup
	mu        sync.Mutex
	samples   []float64
	failed    sync.Once
}

func (l *load) fail(err error) {
	l.failed.Do(func() {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	})
}

// user is one client with its own random keys and latency samples.
type user struct {
	load    *load
	nh      *dragonboat.NodeHost
	shard   uint64
	session *client.Session
	state   uint32
	keys    uint32
	command []byte
	n       uint32
	samples []float64
}

func (u *user) random() uint32 {
	u.state = u.state*1664525 + 1013904223
	return u.state
}

func (u *user) write() {
	binary.LittleEndian.PutUint32(u.command, u.random()%u.keys)
	binary.LittleEndian.PutUint32(u.command[4:], u.n)
	for {
		rs, err := u.nh.Propose(u.session, u.command, requestTimeout)
		if err == dragonboat.ErrSystemBusy {
			time.Sleep(100 * time.Microsecond)
			continue
		}
		if err != nil {
			u.load.fail(err)
			return
		}
		result := <-rs.ResultC()
		rs.Release()
		if result.Completed() {
			if !u.session.IsNoOPSession() {
				u.session.ProposalCompleted()
			}
			u.load.writes.Add(1)
			return
		}
		if !result.Dropped() {
			u.load.unknown.Add(1)
			return
		}
	}
}

func (u *user) read() {
	for {
		rs, err := u.nh.ReadIndex(u.shard, requestTimeout)
		if err == dragonboat.ErrSystemBusy {
			time.Sleep(100 * time.Microsecond)
			continue
		}
		if err != nil {
			u.load.fail(err)
			return
		}
		result := <-rs.ResultC()
		if result.Completed() {
			if _, err := u.nh.ReadLocalNode(rs, u.random()%u.keys); err != nil {
				u.load.fail(err)
			}
			rs.Release()
			u.load.reads.Add(1)
			return
		}
		rs.Release()
		if !result.Dropped() {
			u.load.fail(fmt.Errorf("a read failed"))
		}
	}
}

// isRead spreads readPercent of the operations evenly.
func isRead(n uint32, readPercent uint64) bool {
	at := uint64(n) % 100
	return (at+1)*readPercent/100 > at*readPercent/100
}

func (u *user) operate(readPercent uint64) {
	if isRead(u.n, readPercent) {
		u.read()
	} else {
		u.write()
	}
	u.n++
}

func (u *user) record(since time.Time) {
	if u.load.recording.Load() {
		u.samples = append(u.samples, float64(time.Since(since).Nanoseconds())/1e6)
	}
}

func (u *user) closedLoop(readPercent uint64) {
	for !u.load.stopped.Load() {
		if u.n%timedEvery == 0 {
			start := time.Now()
			u.operate(readPercent)
			u.record(start)
		} else {
			u.operate(readPercent)
		}
	}
}

// openLoop takes what falls due, and measures from when it was due, not from when there was a user free for it.
func (u *user) openLoop(readPercent uint64, due <-chan time.Time) {
	for at := range due {
		u.operate(readPercent)
		u.record(at)
	}
}

func startLoad(nh *dragonboat.NodeHost, shards []uint64, o options, seed uint32) *load {
	l := &load{}
	if len(shards) == 0 {
		return l
	}
	count := max(1, o.Inflight*len(shards)/o.Shards)
	var due chan time.Time
	if o.Rate > 0 {
		due = make(chan time.Time, 1<<20)
		go pace(l, due, o.Rate*len(shards)/o.Shards)
	}
	for c := 0; c < count; c++ {
		shard := shards[c%len(shards)]
		u := &user{
			load: l, nh: nh, shard: shard, session: nh.GetNoOPSession(shard),
			state: seed + uint32(c)*2654435761, keys: uint32(math.Ceil(keys / float64(o.Shards))),
			command: make([]byte, max(8, o.Payload)), n: uint32(c), samples: make([]float64, 0, samplesPerUser),
		}
		if o.Sessions {
			u.session = openSession(nh, shard)
		}
		l.users.Add(1)
		go func() {
			defer l.users.Done()
			if due != nil {
				u.openLoop(uint64(o.ReadPercent), due)
			} else {
				u.closedLoop(uint64(o.ReadPercent))
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.samples = append(l.samples, u.samples...)
		}()
	}
	return l
}

// pace gives every millisecond the requests that fall due in it.
func pace(l *load, due chan<- time.Time, rate int) {
	start := time.Now()
	for k := 0; !l.stopped.Load(); k++ {
		at := start.Add(time.Duration(k*1000/rate) * time.Millisecond)
		if wait := time.Until(at); wait > 0 {
			time.Sleep(wait)
		}
		select {
		case due <- at:
		default:
			l.fail(fmt.Errorf("the rate is far above what is served"))
		}
	}
	close(due)
}

// quantiles in milliseconds, once all users have stopped.
func (l *load) quantiles(shares ...float64) []float64 {
	sort.Float64s(l.samples)
	values := make([]float64, len(shares))
	for i, share := range shares {
		if len(l.samples) > 0 {
			values[i] = l.samples[int(float64(len(l.samples))*share)]
		}
	}
	return values
}
