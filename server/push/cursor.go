package push

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// CursorOwner binds a cursor to the device it was made for: the first 8 bytes, big endian, of SHA-256 over product,
// user and device, each preceded by its length as 4 bytes big endian. A cursor presented by anybody else counts as none.
type CursorOwner uint64

// OwnerOf returns the owner of a device's cursors.
func OwnerOf(p ProductID, u UserID, d DeviceID) CursorOwner {
	h := sha256.New()
	var n [4]byte
	for _, s := range [...]string{string(p), string(u), string(d)} {
		binary.BigEndian.PutUint32(n[:], uint32(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	var sum [32]byte
	return CursorOwner(binary.BigEndian.Uint64(h.Sum(sum[:0])))
}

// MaxCursorString is the most bytes that a cursor string has.
const MaxCursorString = 2 + 16 + 2*3*17

// AppendCursor appends the cursor's string to dst. It is "1" (the version of this format), the owner, then epoch,
// lineage and position of the own and of the common slot, joined by dots, numbers in lower-case hexadecimal without
// leading zeros. Clients build it from message frames, so its form is part of the wire contract.
func AppendCursor(dst []byte, o CursorOwner, c Cursor) []byte {
	dst = append(dst, '1', '.')
	dst = strconv.AppendUint(dst, uint64(o), 16)
	for _, p := range c {
		for _, n := range [...]uint64{uint64(p.Epoch), uint64(p.Lineage), uint64(p.Pos)} {
			dst = append(dst, '.')
			dst = strconv.AppendUint(dst, n, 16)
		}
	}
	return dst
}

// ParseCursor reads what [AppendCursor] wrote. The error says what is wrong, never what stood there.
func ParseCursor(s string) (CursorOwner, Cursor, error) {
	var c Cursor
	if len(s) > MaxCursorString {
		return 0, c, fmt.Errorf("a cursor has at most %d bytes", MaxCursorString)
	}
	rest, ok := strings.CutPrefix(s, "1.")
	if !ok {
		return 0, c, fmt.Errorf("a cursor begins with its version, 1")
	}
	var ns [7]uint64
	for i := range ns {
		var part string
		part, rest, ok = strings.Cut(rest, ".")
		if ok == (i == len(ns)-1) {
			return 0, c, fmt.Errorf("a cursor has eight parts")
		}
		n, err := parseHex(part)
		if err != nil {
			return 0, c, err
		}
		ns[i] = n
	}
	for i := range c {
		c[i] = Place{SlotEpoch(ns[1+3*i]), Lineage(ns[2+3*i]), Position(ns[3+3*i])}
	}
	return CursorOwner(ns[0]), c, nil
}

func parseHex(s string) (uint64, error) {
	if s == "" || len(s) > 16 || len(s) > 1 && s[0] == '0' {
		return 0, fmt.Errorf("a number in a cursor has 1 to 16 hexadecimal digits and no leading zero")
	}
	var n uint64
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= '0' && c <= '9':
			n = n<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | uint64(c-'a'+10)
		default:
			return 0, fmt.Errorf("a number in a cursor has lower-case hexadecimal digits")
		}
	}
	return n, nil
}
