package embedded

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"

	"carillon/server/push"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// FormatVersion is the version of everything that is stored, in all spaces. A database of a newer one is not opened.
const FormatVersion = 1

const (
	defaultCacheBytes = 64 << 20

	// memTableBytes is the size that write buffers grow to; they begin with 256 KiB and double, so that an idle gateway
	// pays nothing for it. At a hundred thousand messages a second, half a kilobyte each with their keys, one lasts
	// about half a second: smaller ones make level 0 grow faster than two compactions can merge it, larger ones bring
	// little and cost resident memory, of which there can be a few at once.
	memTableBytes = 32 << 20

	// memTableAllowance is added to the cache, since Pebble takes the memory of its write buffers from there.
	memTableAllowance = 3 * memTableBytes
)

var formatKey = append([]byte{byte(SpaceMeta)}, "format"...)

// Open opens the database in cfg.Dir, or makes one there. Errors: KindConflict, code "storage_locked" (another process
// has it open), "storage_newer" (written by a newer version), "storage_foreign" (a Pebble store that is not ours).
func Open(cfg Config) (*DB, error) {
	if cfg.Dir == "" {
		return nil, push.Errorf(push.KindInvalid, "storage_dir", "the embedded store needs a directory")
	}
	if cfg.FS == nil {
		cfg.FS = vfs.Default
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.CacheBytes == 0 {
		cfg.CacheBytes = defaultCacheBytes
	}
	db := &DB{
		log:      cfg.Log,
		dir:      cfg.Dir,
		fault:    newFault(),
		wake:     make(chan struct{}, 1),
		progress: make(chan struct{}, 1),
		syncs:    make(chan *group, syncsUnderWay),
	}
	db.batches.New = func() any { return new(Batch) }
	db.uses.idle = make(chan struct{}, 1)
	db.fs = newFailStop(cfg.FS, cfg.Dir, db.fault)

	var err error
	if db.lineage, err = newLineage(cfg.Rand); err != nil {
		return nil, err
	}
	if err := cfg.FS.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded: open %q: %w", cfg.Dir, err)
	}
	if db.lock, err = lockDir(cfg); err != nil {
		return nil, err
	}
	if err := db.openPebble(cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("embedded: open %q: %w", cfg.Dir, err), db.lock.Close())
	}
	db.start()
	if err := db.checkFormat(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func newLineage(r io.Reader) (push.Lineage, error) {
	var b [8]byte
	for {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return 0, fmt.Errorf("embedded: draw a lineage: %w", err)
		}
		if l := push.Lineage(binary.BigEndian.Uint64(b[:]) >> 1); l != 0 {
			return l, nil
		}
	}
}

func lockDir(cfg Config) (*pebble.Lock, error) {
	l, err := pebble.LockDirectory(cfg.Dir, cfg.FS)
	var perr *fs.PathError
	switch {
	case err == nil:
		return l, nil
	case errors.As(err, &perr): // the lock file itself could not be made
		return nil, fmt.Errorf("embedded: open %q: %w", cfg.Dir, err)
	}
	e := push.Errorf(push.KindConflict, "storage_locked", "the data directory %q is in use by another process", cfg.Dir)
	e.Err = err
	return nil, e
}

// openPebble opens the store below. Until it has, failures reach Pebble, which gives up in an orderly way.
func (db *DB) openPebble(cfg Config) (err error) {
	db.cache = pebble.NewCache(cfg.CacheBytes + memTableAllowance)
	defer func() {
		if err != nil {
			db.cache.Unref()
		}
	}()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	if db.pdb, err = pebble.Open(cfg.Dir, db.options()); err != nil {
		return err
	}
	if err := db.openMark(); err != nil {
		return errors.Join(err, db.pdb.Close())
	}
	db.fs.serving.Store(true)
	if ferr := db.fault.get(); ferr != nil {
		db.fs.release()
		return errors.Join(ferr, db.mark.file.Close(), db.pdb.Close())
	}
	return nil
}

func (db *DB) openMark() error {
	m, marked, err := openMark(db.fs, db.dir)
	if err != nil {
		return err
	}
	db.mark = m
	if err := db.checkMark(marked); err != nil {
		return errors.Join(err, m.file.Close())
	}
	return nil
}

func (db *DB) options() *pebble.Options {
	o := &pebble.Options{
		FS:                 db.fs,
		Lock:               db.lock,
		Cache:              db.cache,
		Logger:             logger{db},
		FormatMajorVersion: pebble.FormatValueSeparation,
		MemTableSize:       memTableBytes,
		// Beyond reach: this package stalls writers itself, see awaitRoom.
		MemTableStopWritesThreshold: 4 * stallMemTables,
		L0StopWritesThreshold:       1 << 12,
		L0CompactionThreshold:       8,
		LBaseMaxBytes:               64 << 20,
		MaxOpenFiles:                500,
		BytesPerSync:                1 << 20,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { db.log.Error("embedded: background work failed", "err", err) },
			DataCorruption:  db.noteCorruption,
			FlushEnd:        func(pebble.FlushInfo) { db.noteProgress() },
			CompactionEnd:   func(pebble.CompactionInfo) { db.noteProgress() },
		},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].FilterType = pebble.TableFilter
	}
	return o
}

// noteCorruption makes damaged tables a fault: reading them fails by itself, but a store that lost some of what it
// promised to keep should not go on as if it had not.
func (db *DB) noteCorruption(i pebble.DataCorruptionInfo) {
	db.fault.set("read", fmt.Errorf("damaged table: %w", i.Details))
	db.log.Error("embedded: a table is damaged", "err", i.Details)
}

func (db *DB) checkFormat() error {
	v, found, err := db.Get(nil, formatKey)
	if err != nil {
		return err
	}
	if found {
		return checkFormatValue(db.dir, v)
	}
	it, err := db.Scan(nil, nil)
	if err != nil {
		return err
	}
	foreign := it.First()
	if err := it.Close(); err != nil {
		return err
	}
	if foreign {
		return push.Errorf(push.KindConflict, "storage_foreign", "the data directory %q holds a store of another program", db.dir)
	}
	b := db.NewBatch()
	b.Set(formatKey, binary.AppendUvarint(nil, FormatVersion))
	return db.Write(context.Background(), b)
}

func checkFormatValue(dir string, v []byte) error {
	n, size := binary.Uvarint(v)
	if size <= 0 || size != len(v) || n == 0 {
		return push.Errorf(push.KindInternal, "storage_damaged", "the format version in the data directory %q is damaged", dir)
	}
	if n > FormatVersion {
		return push.Errorf(push.KindConflict, "storage_newer",
			"the data directory %q was written by a newer version (format %d, this one knows %d)", dir, n, FormatVersion)
	}
	return nil
}

// logger carries Pebble's news to slog. Its Fatalf, after which Pebble expects to be dead, sets the fault: from then on
// nothing it does reaches the disk, and nothing is acknowledged.
type logger struct{ db *DB }

func (l logger) Infof(format string, args ...any) {
	if l.db.log.Enabled(context.Background(), slog.LevelDebug) {
		l.db.log.Debug("pebble: " + fmt.Sprintf(format, args...))
	}
}

func (l logger) Errorf(format string, args ...any) {
	l.db.log.Error("pebble: " + fmt.Sprintf(format, args...))
}

func (l logger) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	l.db.fault.set("pebble", err)
	l.db.log.Error("pebble: fatal", "err", err)
}
