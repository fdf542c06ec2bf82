package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/api/resource"

	wherryv1 "github.com/wherry-project/wherry/internal/gen/wherry/v1"
)

const chunk = 256 << 10 // of an archive per message

// imageFlags are those of all image commands.
type imageFlags struct {
	address string
	nodes   []string
}

func (c *command) image() *cobra.Command {
	f := &imageFlags{}
	root := &cobra.Command{
		Use: "image", Short: "Manage container images on the nodes",
		Long: "Manage container images on the nodes, on all of them or on those given by --node.",
	}
	root.PersistentFlags().StringVar(&f.address, "grpc-address", "", "HOST:PORT of a controld's gRPC; default: port 7443 of the kubeconfig's server")
	root.PersistentFlags().StringSliceVar(&f.nodes, "node", nil, "only these nodes; default: all")
	root.AddCommand(c.imageList(f), c.imageImport(f), c.imageExport(f), c.imageRemove(f), c.imagePull(f))
	return root
}

// images runs fn with a client of the Images service.
func (c *command) images(f *imageFlags, fn func(wherryv1.ImagesClient) error) error {
	conn, err := c.connect(f.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	return fn(wherryv1.NewImagesClient(conn))
}

func (c *command) imageList(f *imageFlags) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the images on the nodes", Args: cobra.NoArgs,
		RunE: run(func(ctx context.Context, _ []string) error {
			return c.images(f, func(api wherryv1.ImagesClient) error {
				r, err := api.ListImages(ctx, &wherryv1.ListImagesRequest{Nodes: f.nodes})
				if err != nil {
					return err
				}
				switch output {
				case "json":
					return c.printJSON(r.GetImages())
				case "":
					return c.printImages(r.GetImages())
				}
				return fmt.Errorf("--output is json or nothing, not %q", output)
			})
		}),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, or a table")
	return cmd
}

func (c *command) printImages(images []*wherryv1.NodeImage) error {
	if len(images) == 0 {
		fmt.Fprintln(c.ErrOut, "No images found")
		return nil
	}
	w := tabwriter.NewWriter(c.Out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, "NODE\tIMAGE\tID\tSIZE")
	for _, i := range images {
		names := i.GetTags()
		if len(names) == 0 {
			names = i.GetDigests()
		}
		if len(names) == 0 {
			names = []string{"<none>"}
		}
		for _, name := range names {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", i.GetNode(), name, shortID(i.GetId()), size(i.GetSize()))
		}
	}
	return w.Flush()
}

func shortID(id string) string {
	_, hex, ok := strings.Cut(id, ":")
	if !ok {
		hex = id
	}
	return hex[:min(12, len(hex))]
}

// size says a number of bytes in whole KiB or MiB.
func size(n int64) string {
	q := resource.NewQuantity(n>>10<<10, resource.BinarySI)
	if n >= 10<<20 {
		q = resource.NewQuantity(n>>20<<20, resource.BinarySI)
	}
	return q.String()
}

func (c *command) imageImport(f *imageFlags) *cobra.Command {
	return &cobra.Command{
		Use: "import FILE…", Short: "Load images from archives onto the nodes", Args: cobra.MinimumNArgs(1),
		Long:    "Load images from archives (an OCI layout in a tar file, or what `docker save` writes; all tags in it) onto the nodes. The file - is standard input.",
		Example: "  docker save web:1 | wherry image import -\n  wherry image import web.tar --node n1,n2",
		RunE: run(func(ctx context.Context, files []string) error {
			return c.images(f, func(api wherryv1.ImagesClient) error {
				for _, name := range files {
					if err := c.importFile(ctx, api, f.nodes, name); err != nil {
						return err
					}
				}
				return nil
			})
		}),
	}
}

func (c *command) importFile(ctx context.Context, api wherryv1.ImagesClient, nodes []string, name string) error {
	in := c.In
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		if info, err := file.Stat(); err == nil && info.IsDir() {
			return fmt.Errorf("%s is a folder; an image is imported from a file (`tar -cf IMAGE.tar -C %s .` makes one)", name, name)
		}
		in = file
	}
	stream, err := api.ImportImages(ctx)
	if err != nil {
		return err
	}
	if err := send(stream, nodes, in); err != nil {
		return err
	}
	r, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	for _, i := range r.GetImages() {
		fmt.Fprintf(c.Out, "imported %s on %s\n", strings.Join(append(i.GetTags(), i.GetDigests()...), ", "), i.GetNode())
	}
	return nil
}

// send streams an archive. When the server ends the stream early, the reason
// is what CloseAndRecv returns.
func send(stream grpc.ClientStreamingClient[wherryv1.ImportImagesRequest, wherryv1.ImportImagesResponse], nodes []string, in io.Reader) error {
	err := stream.Send(&wherryv1.ImportImagesRequest{Nodes: nodes})
	b := make([]byte, chunk)
	for err == nil {
		n, readErr := io.ReadFull(in, b)
		if n > 0 {
			err = stream.Send(&wherryv1.ImportImagesRequest{Data: b[:n]})
		}
		if errors.Is(readErr, io.EOF) || errors.Is(readErr, io.ErrUnexpectedEOF) {
			break
		} else if readErr != nil {
			return fmt.Errorf("read the archive: %w", readErr)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (c *command) imageExport(f *imageFlags) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "export IMAGE --node NODE -o FILE", Short: "Write an image of a node to an archive", Args: cobra.ExactArgs(1),
		Example: "  wherry image export web:1 --node n1 -o web.tar",
		RunE: run(func(ctx context.Context, args []string) error {
			if len(f.nodes) != 1 {
				return errors.New("an image is exported from one node: give --node once")
			}
			if output == "" {
				return errors.New("say where to with -o FILE, or -o - for standard output")
			}
			return c.images(f, func(api wherryv1.ImagesClient) error {
				stream, err := api.ExportImage(ctx, &wherryv1.ExportImageRequest{Node: f.nodes[0], Reference: args[0]})
				if err != nil {
					return err
				}
				if output == "-" {
					return receive(stream, c.Out)
				}
				return receiveFile(stream, output)
			})
		}),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write, - for standard output")
	return cmd
}

func receive(stream grpc.ServerStreamingClient[wherryv1.ExportImageResponse], out io.Writer) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if _, err := out.Write(m.GetData()); err != nil {
			return err
		}
	}
}

// receiveFile leaves a whole file or none.
func receiveFile(stream grpc.ServerStreamingClient[wherryv1.ExportImageResponse], path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".export-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := receive(stream, f); err != nil {
		f.Close()
		return err
	}
	if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func (c *command) imageRemove(f *imageFlags) *cobra.Command {
	return &cobra.Command{
		Use: "remove IMAGE…", Aliases: []string{"rm"}, Short: "Remove images from the nodes", Args: cobra.MinimumNArgs(1),
		RunE: run(func(ctx context.Context, images []string) error {
			return c.images(f, func(api wherryv1.ImagesClient) error {
				for _, image := range images {
					r, err := api.RemoveImage(ctx, &wherryv1.RemoveImageRequest{Nodes: f.nodes, Reference: image})
					if err != nil {
						return err
					}
					fmt.Fprintf(c.Out, "removed %s from %d nodes\n", image, r.GetNodes())
				}
				return nil
			})
		}),
	}
}

func (c *command) imagePull(f *imageFlags) *cobra.Command {
	return &cobra.Command{
		Use: "pull IMAGE…", Short: "Pull images onto the nodes", Args: cobra.MinimumNArgs(1),
		RunE: run(func(ctx context.Context, images []string) error {
			return c.images(f, func(api wherryv1.ImagesClient) error {
				for _, image := range images {
					r, err := api.PullImage(ctx, &wherryv1.PullImageRequest{Nodes: f.nodes, Reference: image})
					if err != nil {
						return err
					}
					for _, i := range r.GetImages() {
						fmt.Fprintf(c.Out, "pulled %s (%s) on %s\n", image, shortID(i.GetId()), i.GetNode())
					}
				}
				return nil
			})
		}),
	}
}
