package embedded

// Metrics are figures of the database at one moment.
type Metrics struct {
	DiskBytes       uint64 // all files, logs included
	LogBytes        uint64 // of the logs whose contents are in no table yet
	LogBytesWritten uint64 // since Open
	Syncs           int64  // calls to flush a file to the disk, since Open
	MemTableBytes   uint64
	MemTables       int64
	Level0Layers    int32 // reading looks into each of them
	Flushes         int64 // since Open
	Compactions     int64 // since Open
	CompactionDebt  uint64
	CacheBytes      int64
	CacheHits       int64
	CacheMisses     int64
}

// Metrics returns the present figures. It costs some tens of microseconds. After Close it returns zeros.
func (db *DB) Metrics() Metrics {
	if err := db.uses.acquire(); err != nil {
		return Metrics{}
	}
	defer db.uses.release()
	m := db.pdb.Metrics()
	return Metrics{
		DiskBytes:       m.DiskSpaceUsage(),
		LogBytes:        m.WAL.Size,
		LogBytesWritten: m.WAL.BytesWritten,
		Syncs:           db.fs.syncs.Load(),
		MemTableBytes:   m.MemTable.Size,
		MemTables:       m.MemTable.Count,
		Level0Layers:    m.Levels[0].Sublevels,
		Flushes:         m.Flush.Count,
		Compactions:     m.Compact.Count,
		CompactionDebt:  m.Compact.EstimatedDebt,
		CacheBytes:      m.BlockCache.Size,
		CacheHits:       m.BlockCache.Hits,
		CacheMisses:     m.BlockCache.Misses,
	}
}
