package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"carillon/server/push"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A log that was cut off by a crash ends in the middle of something, and Pebble takes whatever it cannot read at the
// end of the last log for such an end. Bytes that went bad there would make what was acknowledged vanish without a
// word. So every flushed write carries a number, in the database and, once it is flushed, in a small file beside it: a
// database that comes up below the number in the file has lost something that it promised. The file itself is never
// flushed: it tells of a bad log after the process was killed, and tells nothing after a power cut, where it is old or
// gone.
const markName = "synced"

var seqKey = append([]byte{byte(SpaceMeta)}, "seq"...)

const markSize = 12

// mark is the file with the number of the last flushed write.
type mark struct{ file vfs.File }

// openMark opens or makes the file and returns the number in it, 0 if there is none that can be read.
func openMark(fs vfs.FS, dir string) (*mark, uint64, error) {
	f, err := fs.OpenReadWrite(fs.PathJoin(dir, markName), "carillon-mark")
	if err != nil {
		return nil, 0, err
	}
	var b [markSize]byte
	n, err := f.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, errors.Join(err, f.Close())
	}
	if n < markSize || crc32.ChecksumIEEE(b[:8]) != binary.BigEndian.Uint32(b[8:]) {
		return &mark{f}, 0, nil
	}
	return &mark{f}, binary.BigEndian.Uint64(b[:8]), nil
}

func (m *mark) write(seq uint64) error {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, markSize), seq)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	_, err := m.file.WriteAt(b, 0)
	return err
}

// checkMark reads the number of the last write that is in the database and compares it with the file's.
func (db *DB) checkMark(marked uint64) error {
	v, closer, err := db.pdb.Get(seqKey)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
	case err != nil:
		return readError("open", err)
	default:
		n, size := binary.Uvarint(v)
		bad := size <= 0 || size != len(v)
		if err := closer.Close(); err != nil {
			return readError("open", err)
		}
		if bad {
			return damaged(db.dir, "its write number is unreadable")
		}
		db.seq = n
	}
	if db.seq < marked {
		return damaged(db.dir, fmt.Sprintf("its logs end at write %d, and write %d was flushed", db.seq, marked))
	}
	return nil
}

func damaged(dir, why string) error {
	return push.Errorf(push.KindInternal, "storage_damaged",
		"the data directory %q is damaged: %s; restore a backup, or remove the file %q in it to accept the loss", dir, why, markName)
}
