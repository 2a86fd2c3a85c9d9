package main

import (
	"encoding/binary"
	"io"
	"sync"

	sm "github.com/lni/dragonboat/v3/statemachine"
)

// store is the state machine of the benchmark, the same as in bench/kv.ts: numbers under numbers in memory.
// Commands: u32 key, u32 value, padding.
type store struct {
	mu      sync.RWMutex
	values  map[uint32]uint32
	applied uint64
}

func newStore() *store { return &store{values: make(map[uint32]uint32)} }

func (s *store) put(command []byte) uint64 {
	value := binary.LittleEndian.Uint32(command[4:])
	s.values[binary.LittleEndian.Uint32(command)] = value
	s.applied++
	return uint64(value)
}

func (s *store) get(query interface{}) (interface{}, error) {
	return s.values[query.(uint32)], nil
}

// digest is independent of the order of the keys.
func (s *store) digest() (applied uint64, hash uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for key, value := range s.values {
		x := (uint64(key)<<32 | uint64(value)) * 0x9e3779b97f4a7c15
		hash += x ^ x>>29
	}
	return s.applied, hash
}

func (s *store) save(w io.Writer) error {
	image := binary.LittleEndian.AppendUint64(nil, s.applied)
	for key, value := range s.values {
		image = binary.LittleEndian.AppendUint32(image, key)
		image = binary.LittleEndian.AppendUint32(image, value)
	}
	_, err := w.Write(image)
	return err
}

func (s *store) load(r io.Reader) error {
	image, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applied = binary.LittleEndian.Uint64(image)
	s.values = make(map[uint32]uint32)
	for at := 8; at < len(image); at += 8 {
		s.values[binary.LittleEndian.Uint32(image[at:])] = binary.LittleEndian.Uint32(image[at+4:])
	}
	return nil
}

// regular is Dragonboat's everyday form: one command at a time, under the library's own lock.
type regular struct{ *store }

func (s regular) Update(command []byte) (sm.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sm.Result{Value: s.put(command)}, nil
}

func (s regular) Lookup(query interface{}) (interface{}, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.get(query)
}

func (s regular) SaveSnapshot(w io.Writer, _ sm.ISnapshotFileCollection, _ <-chan struct{}) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.save(w)
}

func (s regular) RecoverFromSnapshot(r io.Reader, _ []sm.SnapshotFile, _ <-chan struct{}) error {
	return s.load(r)
}

func (s regular) Close() error { return nil }

// concurrent is the form that gets an array of entries.
type concurrent struct{ *store }

func (s concurrent) Update(entries []sm.Entry) ([]sm.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range entries {
		entries[i].Result.Value = s.put(entries[i].Cmd)
	}
	return entries, nil
}

func (s concurrent) Lookup(query interface{}) (interface{}, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.get(query)
}

// PrepareSnapshot copies: updates go on while the snapshot is written.
func (s concurrent) PrepareSnapshot() (interface{}, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	copied := &store{values: make(map[uint32]uint32, len(s.values)), applied: s.applied}
	for key, value := range s.values {
		copied.values[key] = value
	}
	return copied, nil
}

func (s concurrent) SaveSnapshot(prepared interface{}, w io.Writer, _ sm.ISnapshotFileCollection, _ <-chan struct{}) error {
	return prepared.(*store).save(w)
}

func (s concurrent) RecoverFromSnapshot(r io.Reader, _ []sm.SnapshotFile, _ <-chan struct{}) error {
	return s.load(r)
}

func (s concurrent) Close() error { return nil }
